// Attention of up to kHeadGroup query heads, which share keys and values, over positions of the cache, by the tensor
// cores: a warp takes kTilePositions at a time, softmax as they come. (Dao 2023, "FlashAttention-2".) Nothing is
// rounded to a half on the way: queries and weights are sums of two halves each, and a tile has room for both, as a
// group has half as many heads as a tile.
#pragma once

#include "cuda/halves.cuh"
#include "cuda/program.h"
#include "cuda/warp.cuh"

namespace upg::cuda {

// Eight elements of a vector as they are stored, and as halves.
// load_if() is one instruction with a predicate: as an `if` in C++ addresses were kept apart and the loop spilled.
struct F16Cache {
  using Raw = uint4;
  static constexpr uint32_t kBytes = 2;  // of an element
  static constexpr bool kScales = false;
  static __device__ __forceinline__ void load_if(bool inside, const void* from, Raw& x) {
    asm volatile(
        "{\n"
        ".reg .pred inside;\n"
        "setp.ne.u32 inside, %4, 0;\n"
        "@inside ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%5];\n"
        "}"
        : "+r"(x.x), "+r"(x.y), "+r"(x.z), "+r"(x.w)
        : "r"(static_cast<uint32_t>(inside)), "l"(from)
        : "memory");
  }
  static __device__ uint4 halves(const Raw& raw) { return raw; }
};
struct Int8Cache {
  using Raw = uint2;
  static constexpr uint32_t kBytes = 1;
  static constexpr bool kScales = true;
  static __device__ __forceinline__ void load_if(bool inside, const void* from, Raw& x) {
    asm volatile(
        "{\n"
        ".reg .pred inside;\n"
        "setp.ne.u32 inside, %2, 0;\n"
        "@inside ld.global.cg.v2.u32 {%0, %1}, [%3];\n"
        "}"
        : "+r"(x.x), "+r"(x.y)
        : "r"(static_cast<uint32_t>(inside)), "l"(from)
        : "memory");
  }
  static __device__ uint4 halves(const Raw& raw) {
    __half2 x, y, z, w;
    biased_to_halves(raw.x ^ kOffset, x, y);
    biased_to_halves(raw.y ^ kOffset, z, w);
    return make_uint4(bits_of(x), bits_of(y), bits_of(z), bits_of(w));
  }
};

constexpr unsigned kTilePositions = 8;
constexpr unsigned kKeyChunks = kMaxHeadDim / 32;    // a lane 4 g + t has dimensions 8 t to 8 t + 7 of each, position g
constexpr unsigned kValueChunks = kMaxHeadDim / 64;  // dimensions 8 g to 8 g + 7 of each, positions 2 t and 2 t + 1

// Queries as a tile's first operand: rows 0 to 7 have each head twice, rows 8 to 15 what their halves leave.
struct QueryTile {
  uint32_t words[2 * kKeyChunks][32][4];

  // By one thread: element i of head h, already times what scores are to be multiplied with.
  __device__ void put(uint32_t h, uint32_t i, float x) {
    const __half high = __float2half_rn(x), low = __float2half_rn(x - __half2float(high));
    auto* halves = reinterpret_cast<__half*>(words) + place(h, i);
    constexpr uint32_t kTwin = 4 * 8;  // the same head, in the next row
    halves[0] = halves[kTwin] = high;
    halves[2] = halves[kTwin + 2] = low;
  }
  __device__ float get(uint32_t h, uint32_t i) const {
    const auto* halves = reinterpret_cast<const __half*>(words) + place(h, i);
    return __half2float(halves[0]) + __half2float(halves[2]);
  }
  // In halves; the lower half is two places on.
  static __device__ uint32_t place(uint32_t h, uint32_t i) {
    const uint32_t lane = 8 * h + i / 8 % 4, row = i / 32 * 2 + i / 4 % 2;
    return (row * 32 + lane) * 8 + i / 2 % 2 * 4 + i % 2;
  }
};
constexpr unsigned kQueryTileFloats = sizeof(QueryTile) / 4;

// How scores are scaled, so that weights are powers of two.
__device__ inline float score_factor(const Stage& s) { return 1.44269504f * rsqrtf(static_cast<float>(s.head_dim)); }

__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The keys and values of one head, of which a lane 4 g + t reads a part. Addresses are worked out anew for each tile:
// registers are what there is least of.
template <typename Cache>
class Positions {
 public:
  /// Positions below `end` of the head whose first vector this is.
  __device__ Positions(const Stage& s, uint32_t first_vector, uint32_t end)
      : s_(s), first_(first_vector), last_(first_vector + max(end, 1u) - 1) {
    const uint32_t thread = thread_now();
    g_ = thread % 32 / 4;
    t_ = thread % 4;
  }

  // Past the end comes the last position once more: its weight will be 0. Dimensions that are not there stay as they
  // are, 0 from the beginning.
  __device__ __forceinline__ void load_keys(uint32_t tile, typename Cache::Raw (&k)[kKeyChunks]) const {
    const uint8_t* from = vector(s_.keys, tile + g_, 8 * t_);
#pragma unroll
    for (uint32_t c = 0; c < kKeyChunks; ++c)
      Cache::load_if(32 * c + 8 * t_ < s_.head_dim, from + 32 * c * Cache::kBytes, k[c]);
  }
  __device__ __forceinline__ void load_values(uint32_t tile, typename Cache::Raw (&v)[kValueChunks][2]) const {
#pragma unroll
    for (uint32_t j = 0; j < 2; ++j) {
      const uint8_t* from = vector(s_.values, tile + 2 * t_ + j, 8 * g_);
#pragma unroll
      for (uint32_t c = 0; c < kValueChunks; ++c)
        Cache::load_if(64 * c + 8 * g_ < s_.head_dim, from + 64 * c * Cache::kBytes, v[c][j]);
    }
  }
  __device__ __forceinline__ void load_scales(uint32_t tile, float (&key)[2], float (&value)[2]) const {
#pragma unroll
    for (uint32_t j = 0; j < 2; ++j) {
      const uint32_t at = min(first_ + tile + 2 * t_ + j, last_);
      key[j] = __ldcg(s_.key_scales + at);
      value[j] = __ldcg(s_.value_scales + at);
    }
  }

 private:
  __device__ __forceinline__ const uint8_t* vector(const void* all, uint32_t position, uint32_t dim) const {
    return static_cast<const uint8_t*>(all) + dim * Cache::kBytes +
           static_cast<uint64_t>(min(first_ + position, last_)) * (s_.head_dim * Cache::kBytes);
  }

  const Stage& s_;
  uint32_t first_, last_, g_, t_;
};

// A tile of keys and values that a warp has loaded.
template <typename Cache>
struct Loaded {
  typename Cache::Raw k[kKeyChunks] = {}, v[kValueChunks][2] = {};
  float k_scale[2], v_scale[2];  // of the values' positions

  __device__ __forceinline__ void load_keys(const Positions<Cache>& positions, uint32_t tile) {
    positions.load_keys(tile, k);
  }
  __device__ __forceinline__ void load_values(const Positions<Cache>& positions, uint32_t tile) {
    if constexpr (Cache::kScales) positions.load_scales(tile, k_scale, v_scale);
    positions.load_values(tile, v);
  }
};

// The first position of this warp, of a block's that begin at `begin`.
__device__ inline uint32_t first_of_warp(uint32_t begin) { return begin + thread_now() / 32 * kTilePositions; }

// What a warp has gathered: a softmax so far. Lane 4 g + t has head g / 2's maximum and its own positions' part of the
// total; and of products of values and weights, as the tensor cores leave them, acc[4 c + i]: dimension 64 c + 8 g + 2
// i of head t, with the weights' first halves and with the second, then the next dimension.
template <typename Cache>
struct Gathered {
  float top = -INFINITY, total = 0;
  float unit = 0, inverse_unit = 0;  // the largest scale of values, which weights are in units of
  float acc[4 * kValueChunks][4] = {};

  /// Of head t's maximum, or of what else lanes have as they have that.
  static __device__ __forceinline__ float of_own_head(float x) {
    return __shfl_sync(0xffffffffu, x, 8 * (thread_now() % 4));
  }

  // Weights are in halves, so no score may be far above the maximum that is subtracted, nor a value's scale above the
  // unit. Both change seldom once some positions have been seen.
  static constexpr float kSlack = 8;
  __device__ __forceinline__ void make_room(const float (&score)[2], const Loaded<Cache>& loaded) {
    float new_top = fmaxf(top, fmaxf(score[0], score[1])), new_unit = unit;
    bool late = new_top > top + kSlack;
    if constexpr (Cache::kScales) {
      new_unit = fmaxf(unit, fmaxf(loaded.v_scale[0], loaded.v_scale[1]));
      late |= new_unit > unit;
    }
    if (!__any_sync(0xffffffffu, late)) return;
    new_top = fmaxf(new_top, __shfl_xor_sync(0xffffffffu, new_top, 1));
    new_top = fmaxf(new_top, __shfl_xor_sync(0xffffffffu, new_top, 2));
    const float shrink = new_top == top ? 1.0f : power_of_two(top - new_top);
    top = new_top;
    total *= shrink;
    float factor = shrink;
    if constexpr (Cache::kScales) {
      new_unit = warp_max(new_unit);
      if (new_unit > unit) {
        factor *= unit / new_unit;
        unit = new_unit;
        inverse_unit = 1 / new_unit;
      }
    }
    factor = of_own_head(factor);
#pragma unroll
    for (auto& of_two : acc)
#pragma unroll
      for (float& x : of_two) x *= factor;
  }

  __device__ __forceinline__ void add_values(const typename Cache::Raw (&v)[kValueChunks][2], uint32_t weights) {
#pragma unroll
    for (unsigned c = 0; c < kValueChunks; ++c) {
      const uint4 a = Cache::halves(v[c][0]), b = Cache::halves(v[c][1]);
      const uint32_t first[4] = {a.x, a.y, a.z, a.w}, second[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (unsigned i = 0; i < 4; ++i)
        multiply_halves(acc[4 * c + i], lookup(first[i], second[i], 0x5410), lookup(first[i], second[i], 0x7632),
                        weights);
    }
  }
};

// Shares that a block's warps leave: of one head there is room for each warp's, of more the upper warps' go into the
// lower ones'.
UPG_HOST_DEVICE constexpr unsigned shares_of_warps(unsigned warps, unsigned heads) {
  return heads == 1 ? warps : warps / 2;
}

// Positions [begin, end) of the cache, of which `loaded` has this warp's first tile. Leaves shares
// [shares_of_warps()][heads][head_dim + 2], a maximum, a total, and values; the block meets at the end.
template <typename Cache, unsigned kBlockWarps>
__device__ inline void attend_positions(const Positions<Cache>& positions, uint32_t begin, uint32_t end,
                                        uint32_t head_dim, uint32_t heads, Loaded<Cache>& loaded,
                                        const QueryTile& queries, float* shares) {
  constexpr uint32_t kStride = kBlockWarps * kTilePositions;
  const uint32_t warp = thread_now() / 32, lane = thread_now() % 32, g = lane / 4, t = lane % 4;
  Gathered<Cache> gathered;
#pragma unroll 1
  for (uint32_t tile = first_of_warp(begin); tile < end; tile += kStride) {
    float product[2][4] = {};  // two chains
#pragma unroll
    for (unsigned c = 0; c < kKeyChunks; ++c) {
      const uint4 q0 = *reinterpret_cast<const uint4*>(queries.words[2 * c][lane]);
      const uint4 q1 = *reinterpret_cast<const uint4*>(queries.words[2 * c + 1][lane]);
      const uint32_t a0[4] = {q0.x, q0.y, q0.z, q0.w}, a1[4] = {q1.x, q1.y, q1.z, q1.w};
      const uint4 k = Cache::halves(loaded.k[c]);
      multiply_halves(product[0], a0, k.x, k.y);
      multiply_halves(product[1], a1, k.z, k.w);
    }
    float score[2];
#pragma unroll
    for (unsigned j = 0; j < 2; ++j) {
      float sum = (product[0][j] + product[1][j]) + (product[0][2 + j] + product[1][2 + j]);
      if constexpr (Cache::kScales) sum *= loaded.k_scale[j];
      score[j] = tile + 2 * t + j < end ? sum : -INFINITY;
    }
    const bool more = tile + kStride < end;
    if (more) loaded.load_keys(positions, tile + kStride);
    gathered.make_room(score, loaded);
    float weight[2];
#pragma unroll
    for (unsigned j = 0; j < 2; ++j) {
      weight[j] = power_of_two(score[j] - gathered.top);
      gathered.total += weight[j];
      if constexpr (Cache::kScales) weight[j] *= loaded.v_scale[j] * gathered.inverse_unit;
    }
    const __half2 high = __floats2half2_rn(weight[0], weight[1]);
    const float2 rounded = __half22float2(high);
    const __half2 low = __floats2half2_rn(weight[0] - rounded.x, weight[1] - rounded.y);
    gathered.add_values(loaded.v, bits_of(g % 2 == 0 ? high : low));
    if (more) loaded.load_values(positions, tile + kStride);
  }
  gathered.total += __shfl_xor_sync(0xffffffffu, gathered.total, 1);
  gathered.total += __shfl_xor_sync(0xffffffffu, gathered.total, 2);
  float values[4 * kValueChunks][2];
#pragma unroll
  for (unsigned m = 0; m < 4 * kValueChunks; ++m) {
#pragma unroll
    for (unsigned j = 0; j < 2; ++j) {
      values[m][j] = gathered.acc[m][2 * j] + gathered.acc[m][2 * j + 1];
      if constexpr (Cache::kScales) values[m][j] *= gathered.unit;
    }
  }
  float top = gathered.of_own_head(gathered.top), total = gathered.of_own_head(gathered.total);
  const uint32_t n_shares = shares_of_warps(kBlockWarps, heads);
  const bool merges = n_shares < kBlockWarps;
#pragma unroll 1
  for (unsigned round = merges ? 0 : 1; round < 2; ++round) {
    if ((warp >= n_shares) == (round == 0) && t < heads) {
      float* share = shares + (warp % n_shares * heads + t) * (head_dim + 2);
      float a = 1, b = 0;
      if (merges && round == 1) {  // with heads for all lanes
        const float other_top = share[0], new_top = fmaxf(top, other_top);
        a = new_top == -INFINITY ? 0.0f : power_of_two(top - new_top);
        b = new_top == -INFINITY ? 0.0f : power_of_two(other_top - new_top);
        top = new_top;
        total = total * a + share[1] * b;
        __syncwarp();
      }
      if (g == 0) {
        share[0] = top;
        share[1] = total;
      }
#pragma unroll
      for (unsigned m = 0; m < 4 * kValueChunks; ++m) {
        const uint32_t eight = 64 * (m / 4) + 8 * g, at = eight + 2 * (m % 4);
        if (eight >= head_dim) continue;
        auto* to = reinterpret_cast<float2*>(share + 2 + at);
        float2 x = make_float2(values[m][0] * a, values[m][1] * a);
        if (b != 0) {
          const float2 other = *to;
          x = make_float2(x.x + other.x * b, x.y + other.y * b);
        }
        *to = x;
      }
    }
    __syncthreads();
  }
}

// What each of n shares counts beside the others: weights [n][kHeadGroup], then of the whole tops [kHeadGroup] and
// totals [kHeadGroup]. A warp a head; share(k, h, e) is element e of share k's head h. The block meets at the end.
template <typename Share>
__device__ inline void weigh_shares(uint32_t n, uint32_t heads, Share share, float* weights) {
  const uint32_t h = thread_now() / 32, lane = thread_now() % 32;
  if (h < heads) {
    float top = -INFINITY, total = 0;
    for (uint32_t k = lane; k < n; k += 32) top = fmaxf(top, share(k, h, 0));
    top = warp_max(top);
    for (uint32_t k = lane; k < n; k += 32) {
      const float weight = top == -INFINITY ? 0.0f : exp2f(share(k, h, 0) - top);
      weights[k * kHeadGroup + h] = weight;
      total += weight * share(k, h, 1);
    }
    total = warp_sum(total);
    if (lane == 0) {
      weights[n * kHeadGroup + h] = top;
      weights[(n + 1) * kHeadGroup + h] = total;
    }
  }
  __syncthreads();
}
UPG_HOST_DEVICE constexpr unsigned weights_floats(unsigned n) { return (n + 2) * kHeadGroup; }

// Dimension i of head h of n shares together, before it is divided by the total.
template <typename Share>
__device__ inline float merged_value(uint32_t n, uint32_t h, uint32_t i, Share share, const float* weights) {
  float value = 0;
#pragma unroll 8
  for (uint32_t k = 0; k < n; ++k) value = fmaf(weights[k * kHeadGroup + h], share(k, h, 2 + i), value);
  return value;
}
// The same of the attention itself.
template <typename Share>
__device__ inline float merged(uint32_t n, uint32_t h, uint32_t i, Share share, const float* weights) {
  return merged_value(n, h, i, share, weights) / weights[(n + 1) * kHeadGroup + h];
}
// Dimension i of head h of the one share that n are together; few enough for each thread to weigh them itself.
struct Merged {
  float top, total, value;
};
template <typename Share>
__device__ inline Merged merge_shares(uint32_t n, uint32_t h, uint32_t i, Share share) {
  Merged m = {-INFINITY, 0, 0};
#pragma unroll 4
  for (uint32_t k = 0; k < n; ++k) m.top = fmaxf(m.top, share(k, h, 0));
#pragma unroll 4
  for (uint32_t k = 0; k < n; ++k) {
    const float weight = m.top == -INFINITY ? 0.0f : power_of_two(share(k, h, 0) - m.top);
    m.total = fmaf(weight, share(k, h, 1), m.total);
    m.value = fmaf(weight, share(k, h, 2 + i), m.value);
  }
  return m;
}

}  // namespace upg::cuda
