// The product of two float matrices on tensor cores. Tiles come by asynchronous copies, three stages ahead.
#include "cuda/batch_tile.cuh"
#include "cuda/dense.h"

namespace upg::cuda {
namespace {

constexpr unsigned kTile = 128, kDepth = 32, kStages = 3;
constexpr unsigned kRow = kDepth + 4;  // floats of a tile's row in shared memory: lanes meet no bank twice
constexpr unsigned kStageFloats = 2 * kTile * kRow;
constexpr unsigned kSharedBytes = 4 * kStages * kStageFloats;
constexpr unsigned kGemmThreads = 256;

__device__ __forceinline__ uint32_t to_tf32(float x) {
  uint32_t y = 0;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
#endif
  return y;
}

__device__ __forceinline__ void multiply_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// 16 bytes, or zeros where they are not wanted.
__device__ __forceinline__ void copy16_if(void* to, const void* from, bool wanted) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
      "l"(from), "r"(wanted ? 16 : 0)
      : "memory");
#endif
}

// The tile [kTile, kDepth] of x [rows, k] at (row, column), by all threads.
__device__ __forceinline__ void fetch_tile(const float* x, uint64_t stride, uint32_t rows, uint32_t k, uint32_t row,
                                           uint32_t column, float* to) {
#pragma unroll
  for (unsigned i = 0; i < kTile * kDepth / 4 / kGemmThreads; ++i) {
    const unsigned piece = threadIdx.x + i * kGemmThreads, r = piece / (kDepth / 4), c = 4 * (piece % (kDepth / 4));
    const bool wanted = row + r < rows && column + c < k;
    copy16_if(to + r * kRow + c, wanted ? x + (row + r) * stride + column + c : x, wanted);
  }
}

// Eight warps, 2 by 4, of 64 by 32 outputs each.
template <bool kTwoParts>
__global__ void __launch_bounds__(kGemmThreads, kTwoParts ? 1 : 2) dense_gemm(Gemm g) {
  extern __shared__ __align__(16) float tiles[];
  const uint32_t first_row = blockIdx.y * kTile, first_col = blockIdx.x * kTile;
  if (g.lower && first_col > first_row + kTile - 1) return;
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
  const unsigned row = warp / 4 * 64, col = warp % 4 * 32;
  const uint32_t steps = (g.k + kDepth - 1) / kDepth;
  const auto fetch = [&](uint32_t step) {
    if (step < steps) {
      float* to = tiles + step % kStages * kStageFloats;
      fetch_tile(g.a, g.lda, g.m, g.k, first_row, step * kDepth, to);
      fetch_tile(g.b, g.ldb, g.n, g.k, first_col, step * kDepth, to + kTile * kRow);
    }
    copies_end();
  };
  float acc[4][4][4] = {};
  fetch(0);
  fetch(1);
#pragma unroll 1
  for (uint32_t step = 0; step < steps; ++step) {
    copies_wait<kStages - 2>();
    __syncthreads();
    fetch(step + 2);
    const float* a = tiles + step % kStages * kStageFloats + (row + group) * kRow + t;
    const float* b = tiles + step % kStages * kStageFloats + (kTile + col + group) * kRow + t;
#pragma unroll
    for (unsigned k = 0; k < kDepth; k += 8) {
      uint32_t bh[4][2], bl[4][2];
#pragma unroll
      for (unsigned j = 0; j < 4; ++j)
#pragma unroll
        for (unsigned e = 0; e < 2; ++e) {
          const float x = b[8 * j * kRow + k + 4 * e];
          bh[j][e] = to_tf32(x);
          if (kTwoParts) bl[j][e] = to_tf32(x - __uint_as_float(bh[j][e]));
        }
#pragma unroll
      for (unsigned i = 0; i < 4; ++i) {
        uint32_t ah[4], al[4];
#pragma unroll
        for (unsigned e = 0; e < 4; ++e) {
          const float x = a[(16 * i + 8 * (e & 1)) * kRow + k + 4 * (e / 2)];
          ah[e] = to_tf32(x);
          if (kTwoParts) al[e] = to_tf32(x - __uint_as_float(ah[e]));
        }
#pragma unroll
        for (unsigned j = 0; j < 4; ++j) {
          if (kTwoParts) {
            multiply_tf32(acc[i][j], al, bh[j]);
            multiply_tf32(acc[i][j], ah, bl[j]);
          }
          multiply_tf32(acc[i][j], ah, bh[j]);
        }
      }
    }
  }
#pragma unroll
  for (unsigned i = 0; i < 4; ++i)
#pragma unroll
    for (unsigned j = 0; j < 4; ++j)
#pragma unroll
      for (unsigned e = 0; e < 4; ++e) {
        const uint32_t r = first_row + row + 16 * i + group + 8 * (e / 2), c = first_col + col + 8 * j + 2 * t + e % 2;
        if (r >= g.m || c >= g.n) continue;
        float* to = g.c + r * g.ldc + c;
        *to = (g.add ? *to : 0.0f) + g.alpha * acc[i][j][e];
      }
}

constexpr unsigned kSquare = 32;

__global__ void transpose_kernel(const float* from, uint64_t from_stride, uint32_t rows, uint32_t cols,
                                 const float* scale, uint64_t scale_stride, float* to, uint64_t to_stride) {
  __shared__ float square[kSquare][kSquare + 1];
  const uint32_t r0 = blockIdx.y * kSquare, c0 = blockIdx.x * kSquare;
  for (unsigned i = threadIdx.y; i < kSquare; i += blockDim.y) {
    const uint32_t r = r0 + i, c = c0 + threadIdx.x;
    if (r < rows && c < cols)
      square[i][threadIdx.x] = from[r * from_stride + c] * (scale ? scale[r * scale_stride] : 1.0f);
  }
  __syncthreads();
  for (unsigned i = threadIdx.y; i < kSquare; i += blockDim.y) {
    const uint32_t c = c0 + i, r = r0 + threadIdx.x;
    if (r < rows && c < cols) to[c * to_stride + r] = square[threadIdx.x][i];
  }
}

__global__ void widen_kernel(const uint16_t* from, bool bf16, uint32_t cols, float* to, uint64_t to_stride) {
  const uint64_t row = blockIdx.y;
  const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= cols) return;
  const uint16_t bits = from[row * cols + c];
  float x = 0;
  if (bf16) {
    x = __uint_as_float(static_cast<uint32_t>(bits) << 16);
  } else {
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  }
  to[row * to_stride + c] = x;
}

template <bool kTwoParts>
cudaError_t start(const Gemm& g, cudaStream_t stream) {
  static const cudaError_t allowed =
      cudaFuncSetAttribute(dense_gemm<kTwoParts>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (allowed != cudaSuccess) return allowed;
  dense_gemm<kTwoParts>
      <<<dim3((g.n + kTile - 1) / kTile, (g.m + kTile - 1) / kTile), kGemmThreads, kSharedBytes, stream>>>(g);
  return cudaGetLastError();
}

}  // namespace

cudaError_t multiply_dense(const Gemm& gemm, Precision precision, cudaStream_t stream) {
  if (gemm.m == 0 || gemm.n == 0) return cudaSuccess;
  return precision == Precision::kTf32 ? start<false>(gemm, stream) : start<true>(gemm, stream);
}

cudaError_t transpose(const float* from, uint64_t from_stride, uint32_t rows, uint32_t cols, const float* scale,
                      uint64_t scale_stride, float* to, uint64_t to_stride, cudaStream_t stream) {
  if (rows == 0 || cols == 0) return cudaSuccess;
  transpose_kernel<<<dim3((cols + kSquare - 1) / kSquare, (rows + kSquare - 1) / kSquare), dim3(kSquare, 8), 0,
                     stream>>>(from, from_stride, rows, cols, scale, scale_stride, to, to_stride);
  return cudaGetLastError();
}

cudaError_t widen(const uint16_t* from, Half type, uint32_t rows, uint32_t cols, float* to, uint64_t to_stride,
                  cudaStream_t stream) {
  constexpr uint32_t kMostRows = 32768;  // of a launch
  for (uint32_t row = 0; row < rows; row += kMostRows) {
    const uint32_t n = rows - row < kMostRows ? rows - row : kMostRows;
    widen_kernel<<<dim3((cols + 255) / 256, n), 256, 0, stream>>>(from + uint64_t{row} * cols, type == Half::kBf16,
                                                                  cols, to + row * to_stride, to_stride);
  }
  return cudaGetLastError();
}

}  // namespace upg::cuda
