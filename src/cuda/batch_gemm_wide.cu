// The product of many tokens on Hopper's warpgroup instructions: both operands in shared memory, in rows of 128 bytes
// whose parts of 16 are placed by exclusive or with the row's number, as the instructions want them.
#include <cuda_fp16.h>

#include "cuda/batch_gemm.cuh"
#include "cuda/batch_tile.cuh"

namespace upg::cuda {
namespace {

constexpr unsigned kRows = 128, kTokens = 256;  // of a block; two groups of four warps with 64 rows each
constexpr unsigned kThreads256 = 256;
constexpr unsigned kChunkBlocks = 2, kChunkColumns = 32 * kChunkBlocks;
constexpr unsigned kRowBytes = 2 * kChunkColumns;

template <typename Decoder>
constexpr unsigned kWeightBytes = kRows / 16 * step_bytes(Decoder::kBits);
template <typename Decoder>
constexpr unsigned kSharedBytes = 1024 + (2 * kRows + 3 * kTokens) * kRowBytes + 2 * kWeightBytes<Decoder>;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

constexpr unsigned kChunks = kStepBlocks / kChunkBlocks;

__device__ __forceinline__ unsigned placed(unsigned row, unsigned part) {
  return row * kRowBytes + ((part ^ (row & 7)) << 4);
}

// Rows of 128 bytes, groups of eight rows 1024 bytes apart, 128-byte swizzle.
__device__ __forceinline__ uint64_t descriptor(uint32_t address) {
  return static_cast<uint64_t>((address & 0x3ffffu) >> 4) | (uint64_t{1} << 16) | (uint64_t{64} << 32) |
         (uint64_t{1} << 62);
}

#define UPG_D8(i)                                                                                             \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])

// d += a b: 64 x 16 by 16 x 256, by a warpgroup.
__device__ __forceinline__ void multiply_group(float (&d)[128], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
      "%128, %129, 1, 1, 1, 0, 0;"
      : UPG_D8(0), UPG_D8(8), UPG_D8(16), UPG_D8(24), UPG_D8(32), UPG_D8(40), UPG_D8(48), UPG_D8(56), UPG_D8(64),
        UPG_D8(72), UPG_D8(80), UPG_D8(88), UPG_D8(96), UPG_D8(104), UPG_D8(112), UPG_D8(120)
      : "l"(a), "l"(b));
}
#undef UPG_D8

template <typename Decoder>
__device__ __forceinline__ void multiply_block(const TrellisMatrix& w, const __half* x, uint32_t width,
                                               const float* token_scales, uint32_t n, float* y, uint64_t stride,
                                               uint32_t one) {
  extern __shared__ uint8_t unaligned[];
  __shared__ HalfStep steps[16];
  uint8_t* shared = unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
  uint8_t* tiles = shared;                              // [2][kRows]
  uint8_t* tokens = tiles + 2 * kRows * kRowBytes;      // [3][kTokens]
  uint8_t* weights = tokens + 3 * kTokens * kRowBytes;  // [2][kWeightBytes]
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t first_token = blockIdx.x * kTokens, first_panel = blockIdx.y * (kRows / 16);
  if (threadIdx.x < 16) steps[threadIdx.x] = half_step(w.block_steps[threadIdx.x]);
  const Decoder decoder(w, one, kOffset);
  constexpr unsigned kStep = step_bytes(Decoder::kBits);
  const uint32_t chunks = w.steps * kChunks;

  // Threads keep their places from chunk to chunk: 16 bytes of a token's row, every 32nd of them.
  const unsigned part = threadIdx.x % 8;
  const auto fetch_tokens = [&](uint32_t chunk) {
    uint8_t* to = tokens + chunk % 3 * kTokens * kRowBytes;
    const __half* from = x + static_cast<uint64_t>(first_token + threadIdx.x / 8) * width + chunk * kChunkColumns;
#pragma unroll
    for (unsigned row = threadIdx.x / 8; row < kTokens; row += kThreads256 / 8) {
      copy16(to + placed(row, part), from + 8 * part);
      from += static_cast<uint64_t>(kThreads256 / 8) * width;
    }
  };
  // A warp a panel.
  const uint8_t* panel = w.data + static_cast<uint64_t>(min(first_panel + warp, w.panels - 1)) * w.steps * kStep;
  const auto fetch_weights = [&](uint32_t step) {
    uint8_t* to = weights + (step & 1) * kWeightBytes<Decoder> + warp * kStep;
    for (unsigned i = 16 * lane; i < kStep; i += 512) copy16(to + i, panel + step * kStep + i);
  };
  const auto decode = [&](uint32_t chunk) {
    const unsigned row = threadIdx.x % kRows, in_chunk = threadIdx.x / kRows;
    const uint8_t* step = weights + (chunk / kChunks & 1) * kWeightBytes<Decoder> + row / 16 * kStep;
    uint32_t halves[16];
    decode_halves<Decoder>(decoder, step, row % 16, chunk % kChunks * kChunkBlocks + in_chunk, steps, halves);
    uint8_t* to = tiles + (chunk & 1) * kRows * kRowBytes;
#pragma unroll
    for (unsigned p = 0; p < 4; ++p)
      *reinterpret_cast<uint4*>(to + placed(row, 4 * in_chunk + p)) =
          make_uint4(halves[4 * p], halves[4 * p + 1], halves[4 * p + 2], halves[4 * p + 3]);
  };
  const auto publish = [] { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); };

  float acc[128] = {};
  fetch_weights(0);
  fetch_tokens(0);
  copies_end();
  fetch_tokens(1);  // a step has more than one chunk
  copies_end();
  copies_wait<1>();
  __syncthreads();
  decode(0);
  publish();
  __syncthreads();
#pragma unroll 1
  for (uint32_t chunk = 0; chunk < chunks; ++chunk) {
    const uint32_t a = shared_address(tiles + (chunk & 1) * kRows * kRowBytes + warp / 4 * 64 * kRowBytes);
    const uint32_t b = shared_address(tokens + chunk % 3 * kTokens * kRowBytes);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (unsigned k = 0; k < kChunkColumns / 16; ++k)
      multiply_group(acc, descriptor(a + 32 * k), descriptor(b + 32 * k));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    // Meanwhile the next chunk is decoded, and the one after fetched.
    if (chunk + 2 < chunks) fetch_tokens(chunk + 2);
    if (chunk % kChunks == 0 && chunk / kChunks + 1 < w.steps) fetch_weights(chunk / kChunks + 1);
    copies_end();
    if (chunk + 1 < chunks) decode(chunk + 1);
    copies_wait<1>();
    publish();
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    __syncthreads();
  }
#pragma unroll
  for (unsigned half = 0; half < 2; ++half) {
    const uint32_t row = 16 * (first_panel + warp) + g + 8 * half;
    if (row >= w.rows) continue;
    const float row_scale = w.row_scales[row] * kHalfUnit;
#pragma unroll
    for (unsigned j = 0; j < kTokens / 8; ++j) {
#pragma unroll
      for (unsigned e = 0; e < 2; ++e) {
        const uint32_t token = first_token + 8 * j + 2 * t + e;
        if (token >= n) continue;
        y[token * stride + row] = acc[4 * j + 2 * half + e] * row_scale * token_scales[token];
      }
    }
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <typename Decoder>
__global__ void __launch_bounds__(kThreads256, 1)
    wide_gemm(TrellisMatrix w, const __half* x, uint32_t width, const float* token_scales, uint32_t n, float* y,
              uint64_t stride, uint32_t one) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  multiply_block<Decoder>(w, x, width, token_scales, n, y, stride, one);
#endif
}

template <typename Decoder>
cudaError_t start(const TrellisMatrix& w, HalfTokens x, uint32_t n, float* y, uint64_t stride, Queue queue) {
  static const cudaError_t allowed =
      cudaFuncSetAttribute(wide_gemm<Decoder>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes<Decoder>);
  if (allowed != cudaSuccess) return allowed;
  const dim3 grid((n + kTokens - 1) / kTokens, (w.panels + kRows / 16 - 1) / (kRows / 16));
  wide_gemm<Decoder><<<grid, kThreads256, kSharedBytes<Decoder>, queue.stream>>>(
      w, static_cast<const __half*>(x.values), x.width, x.scales, n, y, stride, 1);
  return cudaGetLastError();
}

}  // namespace

cudaError_t multiply_tokens_wide(const TrellisMatrix& w, HalfTokens x, uint32_t n, float* y, uint64_t stride,
                                 Queue queue) {
  return with_bytes(w,
                    [&](auto decoder) { return start<typename decltype(decoder)::type>(w, x, n, y, stride, queue); });
}

}  // namespace upg::cuda
