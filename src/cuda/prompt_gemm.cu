#include <cuda_fp16.h>

#include "cuda/product.cuh"
#include "cuda/prompt.h"
#include "cuda/prompt_tile.cuh"

namespace upg::cuda {
namespace {

constexpr unsigned kGemmWarps = kGemmRows / 32;  // two panels each
constexpr unsigned kGemmThreads = 32 * kGemmWarps;
constexpr unsigned kStepColumns = 32 * kStepBlocks;
// A token's step in shared memory: 64 bytes more than it has, so that two tokens' chunks of 64 bytes meet no bank
// twice.
constexpr unsigned kTokenBytes = 2 * kStepColumns + 64;

template <unsigned kBits>
constexpr unsigned kWeightBytes = kGemmRows / 16 * step_bytes(kBits);
template <unsigned kBits, unsigned kTokens>
constexpr unsigned kStageBytes = kWeightBytes<kBits> + kTokens* kTokenBytes;

// Four levels to halves: two registers of two.
__device__ __forceinline__ void to_halves(uint32_t levels, __half2 step, uint32_t* out) {
  const uint32_t biased = levels ^ 0x80808080u;
  const uint32_t magic = 0x64646464u;  // in front of a byte: 1024 + byte
  const uint32_t low = lookup(biased, magic, 0x4140u), high = lookup(biased, magic, 0x4342u);
  const __half2 bias = __floats2half2_rn(1152.0f, 1152.0f);
  const __half2 a = __hmul2(__hsub2(*reinterpret_cast<const __half2*>(&low), bias), step);
  const __half2 b = __hmul2(__hsub2(*reinterpret_cast<const __half2*>(&high), bias), step);
  out[0] = *reinterpret_cast<const uint32_t*>(&a);
  out[1] = *reinterpret_cast<const uint32_t*>(&b);
}

// The levels of plane t of one row's block: columns 8 t to 8 t + 7.
template <unsigned kBits>
__device__ __forceinline__ void decode_plane(const Table& table, const uint32_t* w, unsigned t, uint32_t* levels) {
  uint32_t planes[4];
  if constexpr (kBits == 2) {
    planes[0] = w[0];
    planes[1] = w[0] >> 2;
    planes[2] = w[1];
    planes[3] = w[1] >> 2;
  } else if constexpr (kBits == 3) {
    planes[0] = w[0];
    planes[1] = w[1];
    planes[2] = w[2];
    planes[3] = ((w[0] >> 3) & 0x11111111u) | ((w[1] >> 2) & 0x22222222u) | ((w[2] >> 1) & 0x44444444u);
  } else {
    for (unsigned p = 0; p < 4; ++p) planes[p] = w[p];
  }
  // The planes one, two and three places before: of the nibble before where the plane is none of this one.
  const uint32_t t1 = kBits == 2 ? turned(w[0]) >> 2 : turned(planes[1]);
  const uint32_t t2 = turned(planes[2]);
  const uint32_t last = kBits == 2 ? turned(w[1]) >> 2 : turned(planes[3]);
  const uint32_t word = t < 2 ? (t == 0 ? planes[0] : planes[1]) : (t == 2 ? planes[2] : planes[3]);
  const uint32_t u1 = t < 2 ? (t == 0 ? last : planes[0]) : (t == 2 ? planes[1] : planes[2]);
  const uint32_t u2 = t < 2 ? (t == 0 ? t2 : last) : (t == 2 ? planes[0] : planes[1]);
  const uint32_t u3 = t < 2 ? (t == 0 ? t1 : t2) : (t == 2 ? last : planes[0]);
  if constexpr (kBits == 3) {
    Decoder3<false>::plane(table, word, u1, u2, u3, levels, nullptr);
  } else {
    Decoder<kBits>::plane(table, word, u1, u2, u3, levels);
  }
}

// A block of a warp's two panels as operands of the tensor cores: rows g and g + 8, this lane's plane, in two halves of
// 16 columns. `step` has the panels' steps one after the other.
template <unsigned kBits>
__device__ __forceinline__ void decode_block(const Table& table, const uint8_t* step, unsigned block,
                                             const __half2* steps, uint32_t (&a)[2][2][4]) {
  const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (unsigned p = 0; p < 2; ++p) {
    const uint8_t* panel = step + p * step_bytes(kBits);
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      const unsigned row = g + 8 * half;
      const unsigned from = 4 * (row / 4 + 4 * (block & 1)) + block / 2;
      uint32_t words[kBits], levels[2], halves[2];
#pragma unroll
      for (unsigned k = 0; k < kBits; ++k)
        words[k] = *reinterpret_cast<const uint32_t*>(panel + 512 * k + 16 * from + 4 * (row % 4));
      const uint32_t scales = *reinterpret_cast<const uint16_t*>(panel + 512 * kBits + 2 * from);
      const __half2 scale = steps[(scales >> (4 * (row % 4))) & 15];
      decode_plane<kBits>(table, words, t, levels);
#pragma unroll
      for (unsigned k = 0; k < 2; ++k) {
        to_halves(levels[k], scale, halves);
        a[p][k][half] = halves[0];
        a[p][k][2 + half] = halves[1];
      }
    }
  }
}

template <unsigned kBits, unsigned kTiles>  // of 8 tokens
__global__ void __launch_bounds__(kGemmThreads, 1)
    gemm(TrellisMatrix w, const __half* x, uint32_t width, const float* token_scales, uint32_t n, float* y,
         uint64_t stride, bool add, uint32_t two16) {
  constexpr unsigned kTokens = 8 * kTiles;
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ __half2 steps[16];
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t first_token = blockIdx.x * kTokens, first_panel = blockIdx.y * (kGemmRows / 16);
  if (threadIdx.x < 16) steps[threadIdx.x] = __float2half2_rn(w.block_steps[threadIdx.x] * 0x1p-8f);
  const Table table = load_table(w, two16);
  constexpr unsigned kStep = step_bytes(kBits);

  const auto fetch = [&](uint32_t step, uint8_t* to) {
    for (unsigned i = threadIdx.x; i < kWeightBytes<kBits> / 16; i += kGemmThreads) {
      const uint32_t panel = min(first_panel + i / (kStep / 16), w.panels - 1);
      copy16(to + 16 * i, w.data + (static_cast<uint64_t>(panel) * w.steps + step) * kStep + 16 * (i % (kStep / 16)));
    }
    uint8_t* tokens = to + kWeightBytes<kBits>;
    for (unsigned i = threadIdx.x; i < kTokens * (kStepColumns / 8); i += kGemmThreads) {
      const uint32_t token = i / (kStepColumns / 8), chunk = i % (kStepColumns / 8);
      copy16(tokens + token * kTokenBytes + 16 * chunk,
             x + static_cast<uint64_t>(first_token + token) * width + step * kStepColumns + 8 * chunk);
    }
    copies_end();
  };

  float acc[2][kTiles][4] = {};
  fetch(0, shared);
#pragma unroll 1
  for (uint32_t step = 0; step < w.steps; ++step) {
    const uint8_t* at = shared + (step & 1) * kStageBytes<kBits, kTokens>;
    if (step + 1 < w.steps) {
      fetch(step + 1, shared + (~step & 1) * kStageBytes<kBits, kTokens>);
      copies_wait<1>();
    } else {
      copies_wait<0>();
    }
    __syncthreads();
    const uint8_t* tokens = at + kWeightBytes<kBits> + g * kTokenBytes + 16 * t;
    // A block's weights are decoded while the one before is multiplied.
    uint32_t a[2][2][4];
    decode_block<kBits>(table, at + 2 * warp * kStep, 0, steps, a);
#pragma unroll 1
    for (unsigned block = 0; block < kStepBlocks; ++block) {
      uint32_t next[2][2][4];
      decode_block<kBits>(table, at + 2 * warp * kStep, (block + 1) % kStepBlocks, steps, next);
#pragma unroll
      for (unsigned j = 0; j < kTiles; ++j) {
        const uint4 b = *reinterpret_cast<const uint4*>(tokens + 8 * j * kTokenBytes + 64 * block);
#pragma unroll
        for (unsigned p = 0; p < 2; ++p) {
          multiply_halves(acc[p][j], a[p][0], b.x, b.y);
          multiply_halves(acc[p][j], a[p][1], b.z, b.w);
        }
      }
#pragma unroll
      for (unsigned i = 0; i < 16; ++i) a[i / 8][i / 4 % 2][i % 4] = next[i / 8][i / 4 % 2][i % 4];
    }
    __syncthreads();
  }
#pragma unroll
  for (unsigned p = 0; p < 2; ++p) {
    const uint32_t panel = first_panel + 2 * warp + p;
    if (panel >= w.panels) continue;
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      const uint32_t row = 16 * panel + g + 8 * half;
      if (row >= w.rows) continue;
      const float row_scale = w.row_scales[row] * 256.0f;
#pragma unroll
      for (unsigned j = 0; j < kTiles; ++j) {
#pragma unroll
        for (unsigned e = 0; e < 2; ++e) {
          const uint32_t token = first_token + 8 * j + 2 * t + e;
          if (token >= n) continue;
          const float value = acc[p][j][2 * half + e] * row_scale * token_scales[token];
          float* to = y + token * stride + row;
          *to = add ? *to + value : value;
        }
      }
    }
  }
}

template <unsigned kBits, unsigned kTiles>
cudaError_t start(const TrellisMatrix& w, HalfTokens x, uint32_t n, float* y, uint64_t stride, bool add,
                  cudaStream_t stream) {
  constexpr unsigned kShared = 2 * kStageBytes<kBits, 8 * kTiles>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(gemm<kBits, kTiles>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (allowed != cudaSuccess) return allowed;
  const dim3 grid((n + 8 * kTiles - 1) / (8 * kTiles), (w.panels + kGemmRows / 16 - 1) / (kGemmRows / 16));
  gemm<kBits, kTiles><<<grid, kGemmThreads, kShared, stream>>>(w, static_cast<const __half*>(x.values), x.width,
                                                               x.scales, n, y, stride, add, 65536);
  return cudaGetLastError();
}

template <unsigned kBits>
cudaError_t start_for(const TrellisMatrix& w, HalfTokens x, uint32_t n, float* y, uint64_t stride, bool add,
                      uint32_t shared_limit, cudaStream_t stream) {
  if (n <= 8) return start<kBits, 1>(w, x, n, y, stride, add, stream);
  if (n <= 32 || 2 * kStageBytes<kBits, kGemmTokens> + 1024 > shared_limit)
    return start<kBits, 4>(w, x, n, y, stride, add, stream);
  return start<kBits, kGemmTokens / 8>(w, x, n, y, stride, add, stream);
}

}  // namespace

bool can_multiply_tokens(uint32_t shared_limit) { return 2 * kStageBytes<4, 32> + 1024 <= shared_limit; }

cudaError_t multiply_tokens(const TrellisMatrix& w, HalfTokens x, uint32_t n, float* y, uint64_t stride, bool add,
                            uint32_t shared_limit, cudaStream_t stream) {
  if (w.bits == 2) return start_for<2>(w, x, n, y, stride, add, shared_limit, stream);
  if (w.bits == 3) return start_for<3>(w, x, n, y, stride, add, shared_limit, stream);
  return start_for<4>(w, x, n, y, stride, add, shared_limit, stream);
}

}  // namespace upg::cuda
