// The attention stage of one token: rotary positions, the cache's new entry, and softmax over all positions, split over
// blocks so that every multiprocessor reads. (Dao et al. 2023, "Flash-Decoding".)
#pragma once

#include "cuda/attend_positions.cuh"
#include "cuda/product.cuh"

namespace upg::cuda {

// A lane's part of a vector that a warp has: dimensions lane, lane + 32 and so on, 0 past the last.
struct LaneDims {
  static constexpr unsigned kCount = kMaxHeadDim / 32;
  float x[kCount];

  // f(k, i) for element k, which is dimension i.
  template <typename F>
  static __device__ __forceinline__ void for_each(uint32_t head_dim, F f) {
    const uint32_t lane = thread_now() % 32;
#pragma unroll
    for (unsigned k = 0; k < kCount; ++k)
      if (const uint32_t i = lane + 32 * k; i < head_dim) f(k, i);
  }
  // All are read before one is used: they may take a while.
  template <typename F>
  static __device__ __forceinline__ LaneDims of(uint32_t head_dim, F element) {
    LaneDims dims = {};
    for_each(head_dim, [&](unsigned k, uint32_t i) { dims.x[k] = element(i); });
    return dims;
  }
};

// One warp writes a key or a value of the position, and leaves in `v` what reading it gives.
__device__ inline void store_vector(const Stage& s, void* cache, float* scales, uint64_t vector, LaneDims& v) {
  if (!s.int8_cache) {
    LaneDims::for_each(s.head_dim, [&](unsigned k, uint32_t i) {
      const __half rounded = __float2half_rn(v.x[k]);
      static_cast<__half*>(cache)[vector * s.head_dim + i] = rounded;
      v.x[k] = __half2float(rounded);
    });
    return;
  }
  float largest = 0;
  for (const float x : v.x) largest = fmaxf(largest, fabsf(x));
  largest = warp_max(largest);
  const bool zero = !(largest >= 0x1p-100f);
  const float inverse = zero ? 0.0f : __fdiv_rn(127.0f, largest), scale = zero ? 0.0f : __fdiv_rn(largest, 127.0f);
  LaneDims::for_each(s.head_dim, [&](unsigned k, uint32_t i) {
    const int rounded = __float2int_rn(v.x[k] * inverse);
    static_cast<int8_t*>(cache)[vector * s.head_dim + i] = static_cast<int8_t>(rounded);
    v.x[k] = static_cast<float>(rounded) * scale;
  });
  if (thread_now() % 32 == 0) scales[vector] = scale;
}

// One warp: what a head [head_dim] is to be multiplied with besides the weights of its norm.
__device__ inline float head_scale(const Stage& s, const float* head) {
  float sum = 0;
  for (const float x : LaneDims::of(s.head_dim, [&](uint32_t i) { return head[i]; }).x) sum = fmaf(x, x, sum);
  return 1 / sqrtf(warp_sum(sum) / static_cast<float>(s.head_dim) + s.epsilon);
}

// Element i of a head [head_dim] after its norm, if `norm` is not null, and the rotation.
__device__ inline float turned_element(const Stage& s, const float* angles, const float* head, uint32_t i,
                                       const float* norm, float scale) {
  const auto element = [&](uint32_t k) { return norm != nullptr ? head[k] * scale * __ldg(norm + k) : head[k]; };
  const float x = element(i);
  const uint32_t half = s.rotary_dim / 2;
  if (i >= s.rotary_dim) return x;
  const uint32_t j = i < half ? i : i - half;
  const float c = angles[j], sine = angles[half + j];
  const float other = element(i < half ? i + half : j);
  return i < half ? x * c - other * sine : x * c + other * sine;
}

// Brings `count` keys or values from `first` on nearer; `thread` is one of so many that do.
__device__ inline void fetch_vectors(const Stage& s, const void* all, uint64_t first, uint32_t count, uint32_t thread,
                                     uint32_t threads) {
  const uint32_t bytes = s.head_dim * (s.int8_cache ? 1 : 2), lines = (count * bytes + 127) / 128;
  const auto* from = static_cast<const uint8_t*>(all) + first * bytes;
#pragma unroll 1
  for (uint32_t i = thread; i < lines; i += threads) asm volatile("prefetch.global.L2 [%0];" ::"l"(from + 128 * i));
}

// What there is to attend to in all, an item for a block.
__device__ inline uint32_t attend_items(const AttendShape& shape) { return shape.units * shape.splits; }

// What a block attends to, the same in all layers. In shared memory: in registers it would be in the way.
struct AttendItem {
  uint32_t index, unit;            // of attend_items(), of their units
  uint32_t kv, first_head, heads;  // a head of keys and values, and the query heads that share it
  uint32_t begin, cached;          // positions: of the cache from `begin` to `cached`
  uint32_t owner;                  // whether the new position, which follows, is this block's too
};
__device__ inline AttendItem attend_item(const AttendShape& shape, uint32_t index, uint32_t position) {
  AttendItem item{};
  item.index = index;
  item.unit = index / shape.splits;
  const uint32_t chunk = item.unit % shape.chunks, most_heads = shape.few ? 1 : kHeadGroup;
  item.kv = item.unit / shape.chunks;
  item.first_head = item.kv * shape.group + chunk * most_heads;
  item.heads = min(most_heads, shape.group - chunk * most_heads);
  item.begin = shape.first + index % shape.splits * shape.each;
  const uint32_t end = min(item.begin + shape.each, position + 1);
  item.owner = end == position + 1;
  item.cached = end - item.owner;
  return item;
}

// Brings what this block will read nearer: keys before the product that comes before, values before the attention. Both
// at once would take too much of memory's time from that product's weights.
__device__ inline void fetch_cache(const Stage& s, const AttendShape& a, const AttendItem& item, uint32_t position) {
  if (blockIdx.x >= attend_items(a)) return;
  const uint32_t thread = thread_now();
  const bool attends = s.op == Op::kAttend;
  if (attends && 32 * thread < s.rotary_dim)
    asm volatile(
        "prefetch.global.L2 [%0];" ::"l"(s.angles + static_cast<uint64_t>(position) * s.rotary_dim + 32 * thread));
  fetch_vectors(s, attends ? s.values : s.keys, static_cast<uint64_t>(item.kv) * s.capacity + item.begin,
                item.cached - item.begin, thread, kThreads);
}

// Of `heads` queries, then a key and a value, raw [heads + 2][kMaxHeadDim] has what a product left: the first become
// `queries`. The block that is the new position's owner puts the others into the cache, as vector `vector`, and attends
// to them: own_share [heads][head_dim + 2]. fresh [2][head_dim] and scales [kHeadGroup + 1] are what this works with;
// all are in shared memory.
template <unsigned kBlockWarps>
__device__ __forceinline__ void take_heads(const Stage& s, const float* raw, const float* angles, uint32_t heads,
                                           bool owner, uint64_t vector, QueryTile& queries, float* fresh, float* scales,
                                           float* own_share) {
  const uint32_t thread = thread_now(), warp = thread / 32, lane = thread % 32, d = s.head_dim;
  const float *key = raw + heads * kMaxHeadDim, *value = key + kMaxHeadDim;
  if (s.query_norm != nullptr) {
#pragma unroll 1
    for (uint32_t h = warp; h < heads + (owner ? 1 : 0); h += kBlockWarps) {
      const float scale = head_scale(s, raw + h * kMaxHeadDim);
      if (lane == 0) scales[h < heads ? h : kHeadGroup] = scale;
    }
    __syncthreads();
  }
  const float factor = score_factor(s);
#pragma unroll 1
  for (uint32_t k = thread; k < kHeadGroup * kMaxHeadDim; k += 32 * kBlockWarps) {
    const uint32_t h = k / kMaxHeadDim, i = k % kMaxHeadDim;
    const float x = h < heads && i < d
                        ? factor * turned_element(s, angles, raw + h * kMaxHeadDim, i, s.query_norm, scales[h])
                        : 0.0f;
    queries.put(h, i, x);
  }
  // Each chunk of query heads writes the same bytes.
  if (owner && !s.int8_cache) {
#pragma unroll 1
    for (uint32_t k = thread; k < 2 * kMaxHeadDim; k += 32 * kBlockWarps) {
      const bool is_key = k < kMaxHeadDim;
      const uint32_t i = k % kMaxHeadDim;
      if (i >= d) continue;
      const __half rounded =
          __float2half_rn(is_key ? turned_element(s, angles, key, i, s.key_norm, scales[kHeadGroup]) : value[i]);
      static_cast<__half*>(is_key ? s.keys : s.values)[vector * d + i] = rounded;
      (is_key ? fresh : fresh + d)[i] = __half2float(rounded);
    }
  } else if (owner && warp >= kBlockWarps - 2) {  // by a warp each
    const bool is_key = warp == kBlockWarps - 2;
    LaneDims v = LaneDims::of(d, [&](uint32_t i) {
      return is_key ? turned_element(s, angles, key, i, s.key_norm, scales[kHeadGroup]) : value[i];
    });
    store_vector(s, is_key ? s.keys : s.values, is_key ? s.key_scales : s.value_scales, vector, v);
    LaneDims::for_each(d, [&](unsigned k, uint32_t i) { (is_key ? fresh : fresh + d)[i] = v.x[k]; });
  }
  __syncthreads();
  // The new position is a share of its own; the last warps have no more tiles than others.
  if (const uint32_t h = kBlockWarps - 1 - warp; owner && h < heads) {
    float* share = own_share + h * (d + 2);
    const auto products = LaneDims::of(d, [&](uint32_t i) { return queries.get(h, i) * fresh[i]; });
    const auto values = LaneDims::of(d, [&](uint32_t i) { return fresh[d + i]; });
    LaneDims::for_each(d, [&](unsigned k, uint32_t i) { share[2 + i] = values.x[k]; });
    float score = 0;
    for (const float x : products.x) score += x;
    score = warp_sum(score);
    if (lane == 0) {
      share[0] = score;
      share[1] = 1;
    }
  }
}

// What program.h says of the shared memory that this needs.
static_assert(kQueryTileFloats == 2 * kHeadGroup * kMaxHeadDim);
static_assert(shares_of_warps(kWarps, kHeadGroup) + 1 == kAttendShares);
static_assert(shares_of_warps(kWarps, 1) + 1 <= kAttendShares * kHeadGroup);
static_assert((kHeadGroup + 2) * kMaxHeadDim <= kAttendShares * kHeadGroup * (kMaxHeadDim + 2));
static_assert(weights_floats(kMostAttendSplits) <= kQueryTileFloats);

template <typename Cache>
__device__ inline void attend_groups(const Stage& s, const AttendShape& shape, AttendItem& item, const Scratch& scratch,
                                     const Pass& pass, Patience& patience) {
  const uint32_t items = attend_items(shape);
  if (blockIdx.x >= items) return;
  // Of shared memory, as late as they are needed: few registers are left for them.
  const auto out_tag = [&] { return tag_of(s.out_layer, pass.layers_before); };
  const auto most_heads = [&] { return shape.few ? 1 : kHeadGroup; };
  float* fresh = scratch.attend;  // the new key, then the new value
  auto& queries = *reinterpret_cast<QueryTile*>(fresh + 2 * kMaxHeadDim);
  float* shares = fresh + 2 * kMaxHeadDim + kQueryTileFloats;
  float* angles = shares + kAttendShares * kHeadGroup * (kMaxHeadDim + 2);  // [rotary_dim]: cosines, then sines
  float* raw = shares;                       // before there are any: queries, key, value as the products left them
  float* weights = fresh + 2 * kMaxHeadDim;  // once queries have been read: what shares count
  __shared__ uint32_t ticket;
  __shared__ float scales[kHeadGroup + 1];  // of the query heads and the key, where heads are normed
#pragma unroll 1
  for (;;) {
    // What earlier tokens left there depends on nothing of this one.
    const Positions<Cache> positions(s, item.kv * s.capacity, item.cached);
    Loaded<Cache> loaded;
    loaded.load_keys(positions, first_of_warp(item.begin));
    const float angle = load_early(s.angles + static_cast<uint64_t>(pass.position) * s.rotary_dim + thread_now(),
                                   thread_now() < s.rotary_dim);
    const uint32_t in_tag = tag_of(s.in_layer, pass.layers_before);
    // Threads are dealt out as if all heads had kMaxHeadDim dimensions.
#pragma unroll 1
    for (uint32_t k = 4 * thread_now(); k < (item.heads + (item.owner ? 2 : 0)) * kMaxHeadDim; k += 4 * kThreads) {
      const uint32_t h = k / kMaxHeadDim, i = k % kMaxHeadDim;
      if (i >= s.head_dim) continue;
      const uint32_t head = h < item.heads ? item.first_head + h : s.heads + item.kv + (h - item.heads) * s.kv_heads;
      const uint32_t from = head * s.head_dim + i;
      float4 x = wait_tagged(s.in.data + from, in_tag, patience);
      if (s.in.count > 1) x = sum_of(x, wait_tagged(s.in.data + s.in.stride + from, in_tag, patience));
      if (s.bias != nullptr) x = sum_of(x, load4(s.bias + from, true));
      *reinterpret_cast<float4*>(raw + k) = x;
    }
    if (thread_now() < s.rotary_dim) angles[thread_now()] = angle;
    __syncthreads();
    loaded.load_values(positions, first_of_warp(item.begin));
    take_heads<kWarps>(s, raw, angles, item.heads, item.owner != 0, item.kv * s.capacity + pass.position, queries,
                       fresh, scales, shares + shares_of_warps(kWarps, most_heads()) * most_heads() * (s.head_dim + 2));
    attend_positions<Cache, kWarps>(positions, item.begin, item.cached, s.head_dim, most_heads(), loaded, queries,
                                    shares);
    const uint32_t d = s.head_dim, stride = d + 2, room = most_heads();
    const uint32_t n_shares = shares_of_warps(kWarps, room) + item.owner;
    const auto share = [&](uint32_t k, uint32_t h, uint32_t e) { return shares[(k * room + h) * stride + e]; };
    const auto for_elements = [&](auto f) {  // f(h, i) for dimension i of each head
#pragma unroll 1
      for (uint32_t k = thread_now(); k < item.heads * kMaxHeadDim; k += kThreads)
        if (const uint32_t i = k % kMaxHeadDim; i < d) f(k / kMaxHeadDim, i);
    };
    float* out = s.out + item.first_head * d;
    const uint32_t splits = shape.splits;
    if (splits == 1) {
      for_elements([&](uint32_t h, uint32_t i) {
        const Merged m = merge_shares(n_shares, h, i, share);
        store_tagged(out + h * d + i, m.value / m.total, out_tag());
      });
    } else {
      float* partial = s.partial + static_cast<uint64_t>(item.index) * kHeadGroup * stride;
      for_elements([&](uint32_t h, uint32_t i) {
        const Merged m = merge_shares(n_shares, h, i, share);
        __stcg(partial + h * stride + 2 + i, m.value);
        if (i == 0) {
          __stcg(partial + h * stride, m.top);
          __stcg(partial + h * stride + 1, m.total);
        }
      });
      // The last block of a unit puts the shares together, in their order whoever is last.
      __syncthreads();
      if (thread_now() == 0)  // which the last one sets back; ordered after all threads' stores by the barrier
        asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                     : "=r"(ticket)
                     : "l"(s.tickets + item.unit), "r"(splits - 1)
                     : "memory");
      __syncthreads();
      if (ticket == splits - 1) {
        const float* all = s.partial + static_cast<uint64_t>(item.unit) * splits * kHeadGroup * stride;
        const auto part = [&](uint32_t k, uint32_t h, uint32_t e) {
          return __ldcg(all + (static_cast<uint64_t>(k) * kHeadGroup + h) * stride + e);
        };
        weigh_shares(splits, item.heads, part, weights);
        for_elements([&](uint32_t h, uint32_t i) {
          const float x = merged(splits, h, i, part, weights);
          store_tagged(out + h * d + i, x, out_tag());
        });
      }
    }
    if (items <= gridDim.x) break;  // as nearly always: this block's item stays where it is
    const uint32_t next = item.index + gridDim.x;
    __syncthreads();
    if (thread_now() == 0) item = attend_item(shape, next < items ? next : blockIdx.x, pass.position);
    __syncthreads();
    if (next >= items) break;
  }
}

__device__ inline void attend_stage(const Stage& s, const AttendShape& shape, AttendItem& item, const Scratch& scratch,
                                    const Pass& pass, Patience& patience) {
  __syncthreads();  // some threads may still add up what the product before left in scratch.sums
  if (s.int8_cache) {
    attend_groups<Int8Cache>(s, shape, item, scratch, pass, patience);
  } else {
    attend_groups<F16Cache>(s, shape, item, scratch, pass, patience);
  }
}

}  // namespace upg::cuda
