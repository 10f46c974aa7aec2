// The attention stage of one token: rotary positions, the cache's new entry, and softmax over all positions, split over
// blocks so that every multiprocessor reads. (Dao et al. 2023, "Flash-Decoding".)
#pragma once

#include "cuda/product.cuh"

namespace upg::cuda {

constexpr unsigned kLanesPerPosition = 16;
constexpr unsigned kLaneDims = 8;  // so heads have at most 128 dimensions
static_assert(kMaxHeadDim == kLanesPerPosition * kLaneDims);

// Eight elements of a vector as they are stored, and as numbers.
struct F16Cache {
  using Raw = uint4;
  static __device__ Raw load(const void* base, uint64_t element) {
    return __ldcg(reinterpret_cast<const uint4*>(static_cast<const __half*>(base) + element));
  }
  static __device__ void numbers(const Raw& raw, float (&out)[kLaneDims]) {
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&words[i]));
      out[2 * i] = pair.x;
      out[2 * i + 1] = pair.y;
    }
  }
};
struct Int8Cache {
  using Raw = uint2;
  static __device__ Raw load(const void* base, uint64_t element) {
    return __ldcg(reinterpret_cast<const uint2*>(static_cast<const int8_t*>(base) + element));
  }
  static __device__ void numbers(const Raw& raw, float (&out)[kLaneDims]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      out[i] = static_cast<float>(static_cast<int8_t>(raw.x >> (8 * i)));
      out[4 + i] = static_cast<float>(static_cast<int8_t>(raw.y >> (8 * i)));
    }
  }
};

// One warp writes a key or a value [head_dim] of the position, and leaves in x what reading it gives.
__device__ inline void store_vector(const Stage& s, void* cache, float* scales, uint64_t vector, float* x) {
  const uint32_t lane = threadIdx.x % 32;
  if (!s.int8_cache) {
    for (uint32_t i = lane; i < s.head_dim; i += 32) {
      const __half rounded = __float2half_rn(x[i]);
      static_cast<__half*>(cache)[vector * s.head_dim + i] = rounded;
      x[i] = __half2float(rounded);
    }
    return;
  }
  float largest = 0;
  for (uint32_t i = lane; i < s.head_dim; i += 32) largest = fmaxf(largest, fabsf(x[i]));
  largest = warp_max(largest);
  const bool zero = !(largest >= 0x1p-100f);
  const float inverse = zero ? 0.0f : __fdiv_rn(127.0f, largest), scale = zero ? 0.0f : __fdiv_rn(largest, 127.0f);
  for (uint32_t i = lane; i < s.head_dim; i += 32) {
    const int rounded = __float2int_rn(x[i] * inverse);
    static_cast<int8_t*>(cache)[vector * s.head_dim + i] = static_cast<int8_t>(rounded);
    x[i] = static_cast<float>(rounded) * scale;
  }
  if (lane == 0) scales[vector] = scale;
}

// One warp: what a head [head_dim] is to be multiplied with besides the weights of its norm.
__device__ inline float head_scale(const Stage& s, const float* head) {
  float sum = 0;
  for (uint32_t i = threadIdx.x % 32; i < s.head_dim; i += 32) sum = fmaf(head[i], head[i], sum);
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

// out[g] of a group of heads: acc / total of the warps' or blocks' shares, each with its own maximum.
// `shares` [n][kHeadGroup][stride]: maximum, total, then head_dim accumulated values.
template <typename Load>
__device__ inline float merged(uint32_t n, uint32_t i, Load share) {
  float top = -INFINITY;
#pragma unroll 1
  for (uint32_t k = 0; k < n; ++k) top = fmaxf(top, share(k, 0));
  float total = 0, value = 0;
#pragma unroll 1
  for (uint32_t k = 0; k < n; ++k) {
    const float weight = exp2f(share(k, 0) - top);
    total += weight * share(k, 1);
    value += weight * share(k, 2 + i);
  }
  return value / total;
}

// Element i of [kGroup][stride] of the one share that n shares [n][kGroup][stride] are together.
__device__ inline float merged_share(uint32_t n, uint32_t group, uint32_t stride, uint32_t i, const float* shares) {
  const uint32_t g = i / stride, e = i % stride;
  float top = -INFINITY, value = 0;
#pragma unroll 1
  for (uint32_t k = 0; k < n; ++k) top = fmaxf(top, shares[(k * group + g) * stride]);
#pragma unroll 1
  for (uint32_t k = 0; k < n && e > 0; ++k)
    value += exp2f(shares[(k * group + g) * stride] - top) * shares[(k * group + g) * stride + e];
  return e == 0 ? top : value;
}

// What a lane has gathered for its dimensions and positions: softmax so far, with a running maximum.
template <unsigned kGroup>
struct Gathered {
  float top[kGroup], total[kGroup], acc[kGroup][kLaneDims];

  // One position of each half of the warp, with keys and values [kLaneDims] of this lane.
  __device__ __forceinline__ void add(const float (&qs)[kGroup][kLaneDims], const float (&k)[kLaneDims], float k_scale,
                                      const float (&v)[kLaneDims], float v_scale, bool valid) {
    float score[kGroup];
#pragma unroll
    for (unsigned g = 0; g < kGroup; ++g) {
      float dot = 0;
#pragma unroll
      for (unsigned i = 0; i < kLaneDims; ++i) dot = fmaf(qs[g][i], k[i], dot);
      score[g] = dot;
    }
#pragma unroll
    for (unsigned d = kLanesPerPosition / 2; d > 0; d /= 2)
#pragma unroll
      for (unsigned g = 0; g < kGroup; ++g) score[g] += __shfl_xor_sync(0xffffffffu, score[g], d);
#pragma unroll
    for (unsigned g = 0; g < kGroup; ++g) {
      const float x = valid ? score[g] * k_scale : -INFINITY;
      if (x > top[g]) {
        const float shrink = exp2f(top[g] - x);
        top[g] = x;
        total[g] *= shrink;
#pragma unroll
        for (unsigned i = 0; i < kLaneDims; ++i) acc[g][i] *= shrink;
      }
      const float weight = valid ? exp2f(x - top[g]) : 0.0f;
      total[g] += weight;
      const float scaled = weight * v_scale;
#pragma unroll
      for (unsigned i = 0; i < kLaneDims; ++i) acc[g][i] = fmaf(scaled, v[i], acc[g][i]);
    }
  }
};

// Positions whose keys and values a warp loads together: each half of it one position at a time.
template <typename Cache, unsigned kAhead, unsigned kBlockWarps = kWarps>
struct Loaded {
  static constexpr uint32_t kStride = kBlockWarps * 32 / kLanesPerPosition;  // positions of a block
  static constexpr uint32_t kPositions = kAhead * kStride;
  typename Cache::Raw k[kAhead], v[kAhead];
  float k_scale[kAhead], v_scale[kAhead];

  // This thread's of positions base to base + kPositions, below `end`.
  __device__ __forceinline__ void load(const Stage& s, uint64_t first_vector, uint32_t base, uint32_t end) {
    const uint32_t at = threadIdx.x % kLanesPerPosition * kLaneDims;
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      const uint32_t p = base + i * kStride + threadIdx.x / kLanesPerPosition;
      k[i] = v[i] = {};
      k_scale[i] = v_scale[i] = 1;
      if (p < end && at < s.head_dim) {
        const uint64_t element = (first_vector + p) * s.head_dim + at;
        k[i] = Cache::load(s.keys, element);
        v[i] = Cache::load(s.values, element);
        if (s.int8_cache) {
          k_scale[i] = __ldcg(s.key_scales + first_vector + p);
          v_scale[i] = __ldcg(s.value_scales + first_vector + p);
        }
      }
    }
  }
};
template <unsigned kGroup>
constexpr unsigned kAheadOf = kGroup == 1 ? 4 : 1;

// Positions [begin, end) of the cache, of which `loaded` has the first, and one more whose key and value [2][head_dim]
// are `fresh`, where it is not null. Half as many warps' shares are left: [kBlockWarps / 2][kGroup][head_dim + 2].
template <typename Cache, unsigned kGroup, unsigned kAhead, unsigned kBlockWarps>
__device__ inline void attend_positions(const Stage& s, uint64_t first_vector, uint32_t begin, uint32_t end,
                                        Loaded<Cache, kAhead, kBlockWarps>& loaded, const float* q, const float* fresh,
                                        float* shares) {
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t at = lane % kLanesPerPosition * kLaneDims;
  const bool inside = at < s.head_dim;
  const float to_log2 = 1.44269504f * rsqrtf(static_cast<float>(s.head_dim));
  float qs[kGroup][kLaneDims];
  Gathered<kGroup> gathered;
  float(&top)[kGroup] = gathered.top;
  float(&total)[kGroup] = gathered.total;
  float(&acc)[kGroup][kLaneDims] = gathered.acc;
#pragma unroll
  for (unsigned g = 0; g < kGroup; ++g) {
    top[g] = -INFINITY;
    total[g] = 0;
#pragma unroll
    for (unsigned i = 0; i < kLaneDims; ++i) {
      qs[g][i] = inside ? q[g * s.head_dim + at + i] * to_log2 : 0.0f;
      acc[g][i] = 0;
    }
  }
  constexpr uint32_t kStride = Loaded<Cache, kAhead, kBlockWarps>::kStride;
  constexpr uint32_t kPositions = Loaded<Cache, kAhead, kBlockWarps>::kPositions;
  const uint32_t mine = threadIdx.x / kLanesPerPosition;
  // All lanes take part in each round: sums go across lanes.
#pragma unroll 1
  for (uint32_t base = begin; base < end; base += kPositions) {
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      if (base + i * kStride >= end) break;
      float k[kLaneDims], v[kLaneDims];
      Cache::numbers(loaded.k[i], k);
      Cache::numbers(loaded.v[i], v);
      // Lanes without dimensions have zeros; scales must be those of the others.
      const float ks = __shfl_sync(0xffffffffu, loaded.k_scale[i], lane & kLanesPerPosition);
      gathered.add(qs, k, ks, v, loaded.v_scale[i], base + i * kStride + mine < end);
    }
    if (base + kPositions < end) loaded.load(s, first_vector, base + kPositions, end);
  }
  if (fresh != nullptr && warp == kBlockWarps - 1) {
    float k[kLaneDims], v[kLaneDims];
#pragma unroll
    for (unsigned i = 0; i < kLaneDims; ++i) {
      k[i] = inside ? fresh[at + i] : 0.0f;
      v[i] = inside ? fresh[s.head_dim + at + i] : 0.0f;
    }
    gathered.add(qs, k, 1.0f, v, 1.0f, lane < kLanesPerPosition);
  }
  __syncwarp();
  // The positions of a warp's two halves, then the upper warps' into the lower ones', through shared memory.
#pragma unroll
  for (unsigned g = 0; g < kGroup; ++g) {
    const float other_top = __shfl_xor_sync(0xffffffffu, top[g], kLanesPerPosition);
    const float new_top = fmaxf(top[g], other_top);
    const float mine_weight = new_top == -INFINITY ? 0.0f : exp2f(top[g] - new_top);
    top[g] = new_top;
    total[g] *= mine_weight;
    total[g] += __shfl_xor_sync(0xffffffffu, total[g], kLanesPerPosition);
#pragma unroll
    for (unsigned i = 0; i < kLaneDims; ++i) {
      acc[g][i] *= mine_weight;
      acc[g][i] += __shfl_xor_sync(0xffffffffu, acc[g][i], kLanesPerPosition);
    }
  }
  const uint32_t stride = s.head_dim + 2;
  const bool writes = lane < kLanesPerPosition && inside;
  const uint32_t writers = (1u << (s.head_dim / kLaneDims)) - 1;
#pragma unroll 1
  for (unsigned round = 0; round < 2; ++round) {
    if (warp / (kBlockWarps / 2) == 1 - round && writes) {
#pragma unroll
      for (unsigned g = 0; g < kGroup; ++g) {
        float* share = shares + (warp % (kBlockWarps / 2) * kGroup + g) * stride;
        if (round == 1) {
          const float other_top = share[0];
          const float new_top = fmaxf(top[g], other_top);
          const float a = new_top == -INFINITY ? 0.0f : exp2f(top[g] - new_top);
          const float b = new_top == -INFINITY ? 0.0f : exp2f(other_top - new_top);
          top[g] = new_top;
          total[g] = total[g] * a + share[1] * b;
#pragma unroll
          for (unsigned i = 0; i < kLaneDims; ++i) acc[g][i] = acc[g][i] * a + share[2 + at + i] * b;
        }
        __syncwarp(writers);
        if (lane == 0) {
          share[0] = top[g];
          share[1] = total[g];
        }
#pragma unroll
        for (unsigned i = 0; i < kLaneDims; ++i) share[2 + at + i] = acc[g][i];
      }
    }
    __syncthreads();
  }
}

// One warp: brings the keys and values that this block will read nearer.
__device__ inline void fetch_cache(const Stage& s, const AttendShape& a, uint32_t position) {
  const uint32_t lane = threadIdx.x % 32;
  if (blockIdx.x >= a.units * a.splits) return;
  if (32 * lane < s.rotary_dim)
    asm volatile(
        "prefetch.global.L2 [%0];" ::"l"(s.angles + static_cast<uint64_t>(position) * s.rotary_dim + 32 * lane));
  const uint32_t kv = blockIdx.x / a.splits / a.chunks, begin = a.first + blockIdx.x % a.splits * a.each;
  const uint32_t count = min(a.each, position - min(position, begin));
  const uint32_t bytes = s.head_dim * (s.int8_cache ? 1 : 2);
  const uint64_t at = (static_cast<uint64_t>(kv) * s.capacity + begin) * bytes;
  const uint32_t lines = (count * bytes + 127) / 128;
  for (uint32_t i = lane; i < lines; i += 32) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const uint8_t*>(s.keys) + at + 128 * i));
    asm volatile("prefetch.global.L2 [%0];" ::"l"(static_cast<const uint8_t*>(s.values) + at + 128 * i));
  }
}

template <typename Cache, unsigned kGroup>
__device__ inline void attend_groups(const Stage& s, const AttendShape& shape, uint32_t position,
                                     const Scratch& scratch, const Pass& pass, Patience& patience) {
  const uint32_t d = s.head_dim, group = shape.group, chunks = shape.chunks, units = shape.units;
  const uint32_t first = shape.first, each = shape.each, splits = shape.splits;
  const uint32_t stride = d + 2;
  const uint32_t in_tag = tag_of(s.in_layer, pass.layers_before), out_tag = tag_of(s.out_layer, pass.layers_before);
  float* raw = scratch.sums;  // queries, key, value as the products left them
  float* q = raw + (kGroup + 2) * kMaxHeadDim;
  float* fresh = q + kGroup * kMaxHeadDim;  // key, then value
  float* shares = fresh + 2 * kMaxHeadDim;
  __shared__ uint32_t ticket;
  __shared__ float scales[kGroup + 1];  // of the query heads and the key, where heads are normed
  float* angles = shares + kMergeWarps * kGroup * (kMaxHeadDim + 2);  // [rotary_dim]: cosines, then sines
  for (uint32_t item = blockIdx.x; item < units * splits; item += gridDim.x) {
    const uint32_t unit = splits == 1 ? item : item / splits, split = item - unit * splits;
    const uint32_t kv = unit / chunks, first_head = kv * group + unit % chunks * kGroup;
    const uint32_t heads = min(kGroup, group - unit % chunks * kGroup);
    const uint32_t begin = first + split * each, end = min(begin + each, position + 1);
    const uint64_t first_vector = static_cast<uint64_t>(kv) * s.capacity;
    const bool owner = end == position + 1;
    const uint32_t cached = owner ? end - 1 : end;
    // What earlier tokens left there depends on nothing of this one.
    Loaded<Cache, kAheadOf<kGroup>> loaded;
    loaded.load(s, first_vector, begin, cached);
    const float angle =
        load_early(s.angles + static_cast<uint64_t>(position) * s.rotary_dim + threadIdx.x, threadIdx.x < s.rotary_dim);
    // Threads are dealt out as if all heads had kMaxHeadDim dimensions.
    for (uint32_t k = 4 * threadIdx.x; k < (heads + (owner ? 2 : 0)) * kMaxHeadDim; k += 4 * kThreads) {
      const uint32_t h = k / kMaxHeadDim, i = k % kMaxHeadDim;
      if (i >= d) continue;
      const uint32_t from = (h < heads ? first_head + h : s.heads + kv + (h - heads) * s.kv_heads) * d + i;
      float4 x = wait_tagged(s.in.data + from, in_tag, patience);
      if (s.in.count > 1) x = sum_of(x, wait_tagged(s.in.data + s.in.stride + from, in_tag, patience));
      if (s.bias != nullptr) x = sum_of(x, load4(s.bias + from, true));
      *reinterpret_cast<float4*>(raw + k) = x;
    }
    if (threadIdx.x < s.rotary_dim) angles[threadIdx.x] = angle;
    __syncthreads();
    const float *key = raw + heads * kMaxHeadDim, *value = key + kMaxHeadDim;
    if (s.query_norm != nullptr) {
#pragma unroll 1
      for (uint32_t h = threadIdx.x / 32; h < heads + (owner ? 1 : 0); h += kWarps) {
        const float scale = head_scale(s, raw + h * kMaxHeadDim);
        if (threadIdx.x % 32 == 0) scales[h < heads ? h : kGroup] = scale;
      }
      __syncthreads();
    }
#pragma unroll 1
    for (uint32_t k = threadIdx.x; k < kGroup * kMaxHeadDim; k += kThreads) {
      const uint32_t h = k / kMaxHeadDim, i = k % kMaxHeadDim;
      if (i >= d) continue;
      q[h * d + i] = h < heads ? turned_element(s, angles, raw + h * kMaxHeadDim, i, s.query_norm, scales[h]) : 0.0f;
    }
    // The new key and value, by the block's last threads: with one query head the first are busy.
    const uint32_t mine = kThreads - 1 - threadIdx.x, dim = mine % kMaxHeadDim;
    if (owner && mine < 2 * kMaxHeadDim && dim < d)
      fresh[mine < kMaxHeadDim ? dim : d + dim] =
          mine < kMaxHeadDim ? turned_element(s, angles, key, dim, s.key_norm, scales[kGroup]) : value[dim];
    __syncthreads();
    if (owner) {
      // Each chunk of query heads writes the same bytes.
      if (threadIdx.x / 32 == 0) store_vector(s, s.keys, s.key_scales, first_vector + position, fresh);
      if (threadIdx.x / 32 == 1) store_vector(s, s.values, s.value_scales, first_vector + position, fresh + d);
      __syncthreads();
    }
    attend_positions<Cache, kGroup>(s, first_vector, begin, cached, loaded, q, owner ? fresh : nullptr, shares);
    float* partial = s.partial + static_cast<uint64_t>(item) * kGroup * stride;
    if (splits == 1) {
#pragma unroll 1
      for (uint32_t k = threadIdx.x; k < heads * kMaxHeadDim; k += kThreads) {
        const uint32_t h = k / kMaxHeadDim, i = k % kMaxHeadDim;
        if (i >= d) continue;
        const float x =
            merged(kMergeWarps, i, [&](uint32_t w, uint32_t e) { return shares[(w * kGroup + h) * stride + e]; });
        store_tagged(s.out + (first_head + h) * d + i, x, out_tag);
      }
    } else {
#pragma unroll 1
      for (uint32_t i = threadIdx.x; i < heads * stride; i += kThreads)
        __stcg(partial + i, merged_share(kMergeWarps, kGroup, stride, i, shares));
      // The last block of a unit puts the shares together, in their order whoever is last.
      __threadfence();
      __syncthreads();
      if (threadIdx.x == 0) {
        ticket = atomicInc(s.tickets + unit, splits - 1);  // which the last one sets back
        __threadfence();
      }
      __syncthreads();
      if (ticket == splits - 1) {
        const float* all = s.partial + static_cast<uint64_t>(unit) * splits * kGroup * stride;
#pragma unroll 1
        for (uint32_t k = threadIdx.x; k < heads * kMaxHeadDim; k += kThreads) {
          const uint32_t h = k / kMaxHeadDim, i = k % kMaxHeadDim;
          if (i >= d) continue;
          const float x = merged(splits, i, [&](uint32_t part, uint32_t e) {
            return __ldcg(all + (static_cast<uint64_t>(part) * kGroup + h) * stride + e);
          });
          store_tagged(s.out + (first_head + h) * d + i, x, out_tag);
        }
      }
    }
    __syncthreads();
  }
}

__device__ inline void attend_stage(const Stage& s, const AttendShape& shape, uint32_t position, const Scratch& scratch,
                                    const Pass& pass, Patience& patience) {
  __syncthreads();  // some threads may still add up what the product before left in scratch.sums
  const auto attend = [&](auto cache) {
    using Cache = decltype(cache);
    if (shape.few) {
      attend_groups<Cache, 1>(s, shape, position, scratch, pass, patience);
    } else {
      attend_groups<Cache, kHeadGroup>(s, shape, position, scratch, pass, patience);
    }
  };
  if (s.int8_cache) {
    attend(Int8Cache());
  } else {
    attend(F16Cache());
  }
}

}  // namespace upg::cuda
