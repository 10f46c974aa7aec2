// Attention of many tokens: queries stay in registers, keys and values pass by in tiles, softmax as they come. (Dao
// 2023, "FlashAttention-2".)
#include "cuda/attend_positions.cuh"
#include "cuda/batch.h"
#include "cuda/batch_tile.cuh"

namespace upg::cuda {
namespace {

constexpr unsigned kTileQueries = 64, kPassPositions = 64;
constexpr unsigned kAttendWarps = kTileQueries / 16;
constexpr unsigned kAttendThreads = 32 * kAttendWarps;

// Integers in halves, times the scale.
__device__ __forceinline__ uint32_t scaled(uint32_t pair, float scale) {
  const float2 x = __half22float2(*reinterpret_cast<const __half2*>(&pair));
  return pack(x.x * scale, x.y * scale);
}

// Heads of up to 32 kChunks dimensions, padded with zeros. Shared: keys and values [2 tiles][2][kPassPositions][row].
template <unsigned kChunks>
__global__ void __launch_bounds__(kAttendThreads)
    attend_kernel(Stage s, uint32_t n, uint32_t position, float* x_of_all) {
  constexpr unsigned kDims = 32 * kChunks;
  constexpr unsigned kRow = kDims + 8;  // halves; 16 bytes more than a multiple of 128 or 64: no bank twice
  extern __shared__ __align__(16) __half tile[];
  constexpr unsigned kTileHalves = 2 * kPassPositions * kRow;
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t head = blockIdx.y, kv = head / (s.heads / s.kv_heads), d = s.head_dim;
  // Long ones first.
  const uint32_t first_query = (gridDim.x - 1 - blockIdx.x) * kTileQueries;
  const float factor = score_factor(s);

  // Dimensions are taken in another order, the same for queries and keys: a lane has 8 t to 8 t + 7 of each 32.
  uint32_t q[kChunks][2][4];
#pragma unroll
  for (unsigned half = 0; half < 2; ++half) {
    const uint32_t query = first_query + 16 * warp + g + 8 * half;
    const float* from = x_of_all + (static_cast<uint64_t>(query) * s.heads + head) * d;
#pragma unroll
    for (unsigned c = 0; c < kChunks; ++c) {
      const uint32_t at = 32 * c + 8 * t;
      float x[8] = {};
      if (query < n && at < d) {
        const float4 a = *reinterpret_cast<const float4*>(from + at),
                     b = *reinterpret_cast<const float4*>(from + at + 4);
        x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
      }
#pragma unroll
      for (unsigned k = 0; k < 2; ++k) {
        q[c][k][half] = pack(x[4 * k] * factor, x[4 * k + 1] * factor);
        q[c][k][2 + half] = pack(x[4 * k + 2] * factor, x[4 * k + 3] * factor);
      }
    }
  }
  float o[4 * kChunks][4] = {};
  float top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
  const uint32_t last_position = position + min(first_query + kTileQueries, n);  // one past the last key needed
  const uint32_t oldest = position + first_query;                                // of the first query
  const uint32_t begin =
      s.window != 0 && oldest + 1 > s.window ? (oldest + 1 - s.window) / kPassPositions * kPassPositions : 0;
  // f16 arrives by itself while the tile before is worked on; int8 is turned into it here and now.
  const auto fetch = [&](uint32_t base, __half* keys) {
    for (unsigned i = threadIdx.x; i < 2 * kPassPositions * (kDims / 8); i += kAttendThreads) {
      const unsigned which = i / (kPassPositions * (kDims / 8)), p = i / (kDims / 8) % kPassPositions;
      const unsigned at = i % (kDims / 8) * 8;
      auto* to = reinterpret_cast<uint4*>(keys + (which * kPassPositions + p) * kRow + at);
      const uint64_t vector = static_cast<uint64_t>(kv) * s.capacity + base + p;
      const void* cache = which ? s.values : s.keys;
      if (base + p >= last_position || at >= d) {
        *to = make_uint4(0, 0, 0, 0);
      } else if (s.int8_cache) {
        const float scale = (which ? s.value_scales : s.key_scales)[vector];
        const uint4 x = Int8Cache::halves(
            __ldcg(reinterpret_cast<const uint2*>(static_cast<const int8_t*>(cache) + vector * d + at)));
        *to = make_uint4(scaled(x.x, scale), scaled(x.y, scale), scaled(x.z, scale), scaled(x.w, scale));
      } else {
        copy16(to, static_cast<const __half*>(cache) + vector * d + at);
      }
    }
    copies_end();
  };
  fetch(begin, tile);
  unsigned turn = 0;
#pragma unroll 1
  for (uint32_t base = begin; base < last_position; base += kPassPositions, turn ^= 1) {
    const __half* keys = tile + turn * kTileHalves;
    const __half* values = keys + kPassPositions * kRow;
    if (base + kPassPositions < last_position) {
      fetch(base + kPassPositions, tile + (turn ^ 1) * kTileHalves);
      copies_wait<1>();
    } else {
      copies_wait<0>();
    }
    __syncthreads();
    float score[kPassPositions / 8][4];
#pragma unroll
    for (unsigned j = 0; j < kPassPositions / 8; ++j) {
      score[j][0] = score[j][1] = score[j][2] = score[j][3] = 0;
#pragma unroll
      for (unsigned c = 0; c < kChunks; ++c) {
        const uint4 k = *reinterpret_cast<const uint4*>(keys + (8 * j + g) * kRow + 32 * c + 8 * t);
        multiply_halves(score[j], q[c][0], k.x, k.y);
        multiply_halves(score[j], q[c][1], k.z, k.w);
      }
    }
    // Scores of rows g and g + 8 at positions 8 j + 2 t and the next.
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      const uint32_t at = position + first_query + 16 * warp + g + 8 * half;  // of the query
      float new_top = top[half];
#pragma unroll
      for (unsigned j = 0; j < kPassPositions / 8; ++j) {
#pragma unroll
        for (unsigned e = 0; e < 2; ++e) {
          const uint32_t p = base + 8 * j + 2 * t + e;
          float& x = score[j][2 * half + e];
          if (p > at || (s.window != 0 && p + s.window <= at)) x = -INFINITY;
          new_top = fmaxf(new_top, x);
        }
      }
      new_top = fmaxf(new_top, __shfl_xor_sync(0xffffffffu, new_top, 1));
      new_top = fmaxf(new_top, __shfl_xor_sync(0xffffffffu, new_top, 2));
      const float zero = new_top == -INFINITY ? 0.0f : new_top;
      const float shrink = exp2f(top[half] - zero);
      top[half] = new_top;
      float sum = 0;
#pragma unroll
      for (unsigned j = 0; j < kPassPositions / 8; ++j) {
#pragma unroll
        for (unsigned e = 0; e < 2; ++e) sum += score[j][2 * half + e] = exp2f(score[j][2 * half + e] - zero);
      }
      total[half] = total[half] * shrink + sum;
#pragma unroll
      for (unsigned i = 0; i < 4 * kChunks; ++i) {
        o[i][2 * half] *= shrink;
        o[i][2 * half + 1] *= shrink;
      }
    }
#pragma unroll
    for (unsigned j = 0; j < kPassPositions / 16; ++j) {
      const uint32_t weights[4] = {pack(score[2 * j][0], score[2 * j][1]), pack(score[2 * j][2], score[2 * j][3]),
                                   pack(score[2 * j + 1][0], score[2 * j + 1][1]),
                                   pack(score[2 * j + 1][2], score[2 * j + 1][3])};
#pragma unroll
      for (unsigned i = 0; i < 2 * kChunks; ++i) {
        // Two tiles of 8 dimensions, 16 positions, turned on their way: lane l has the address of row l % 16.
        uint32_t b[4];
        const uint32_t from = static_cast<uint32_t>(
            __cvta_generic_to_shared(values + (16 * j + lane % 16) * kRow + 16 * i + lane / 16 * 8));
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                     : "r"(from));
        multiply_halves(o[2 * i], weights, b[0], b[1]);
        multiply_halves(o[2 * i + 1], weights, b[2], b[3]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (unsigned half = 0; half < 2; ++half) {
    total[half] += __shfl_xor_sync(0xffffffffu, total[half], 1);
    total[half] += __shfl_xor_sync(0xffffffffu, total[half], 2);
    const uint32_t query = first_query + 16 * warp + g + 8 * half;
    if (query >= n) continue;
    float* to = x_of_all + (static_cast<uint64_t>(query) * s.heads + head) * d;
#pragma unroll
    for (unsigned i = 0; i < 4 * kChunks; ++i) {
      const unsigned at = 8 * i + 2 * t;
      if (at >= d) continue;
      to[at] = o[i][2 * half] / total[half];
      to[at + 1] = o[i][2 * half + 1] / total[half];
    }
  }
}

template <unsigned kChunks>
cudaError_t start(const Stage& s, uint32_t n, uint32_t position, float* x, Queue queue) {
  constexpr unsigned kShared = 2 * 2 * kPassPositions * (32 * kChunks + 8) * 2;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(attend_kernel<kChunks>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (allowed != cudaSuccess) return allowed;
  const dim3 grid((n + kTileQueries - 1) / kTileQueries, s.heads);
  attend_kernel<kChunks><<<grid, kAttendThreads, kShared, queue.stream>>>(s, n, position, x);
  return cudaGetLastError();
}

}  // namespace

cudaError_t attend_run(const Stage& s, uint32_t n, uint32_t position, float* x, Queue queue) {
  if (s.head_dim <= 32) return start<1>(s, n, position, x, queue);
  if (s.head_dim <= 64) return start<2>(s, n, position, x, queue);
  if (s.head_dim <= 96) return start<3>(s, n, position, x, queue);
  return start<4>(s, n, position, x, queue);
}

}  // namespace upg::cuda
