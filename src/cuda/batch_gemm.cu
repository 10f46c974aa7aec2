#include <cuda_fp16.h>

#include "cuda/batch_gemm.cuh"
#include "cuda/batch_tile.cuh"

namespace upg::cuda {
namespace {

constexpr unsigned kGemmRows = 256, kGemmTokens = 128;  // of a block, at most
constexpr unsigned kSlicedTokens = kGemmTokens;         // more give enough blocks by themselves
constexpr unsigned kGemmWarps = kGemmRows / 32;         // two panels each
constexpr unsigned kGemmThreads = 32 * kGemmWarps;
constexpr unsigned kChunkBlocks = 2;  // of 32 columns: what is multiplied between two barriers
constexpr unsigned kChunks = kStepBlocks / kChunkBlocks;
constexpr unsigned kChunkColumns = 32 * kChunkBlocks;
// A row of a chunk in shared memory, of weights or of a token: 16 bytes more than it has, so that neither eight rows of
// 16 bytes nor two of 64 meet a bank twice.
constexpr unsigned kRowBytes = 2 * kChunkColumns + 16;
constexpr unsigned kTokenRowBytes = 2 * kChunkColumns + 64;

template <typename Decoder>
constexpr unsigned kWeightBytes = kGemmRows / 16 * step_bytes(Decoder::kBits);
constexpr unsigned kTileBytes = kGemmRows * kRowBytes;
// Two steps of weights as they are stored, two chunks of them as halves, two chunks of tokens.
template <typename Decoder, unsigned kTokens>
constexpr unsigned kSharedBytes = 2 * kWeightBytes<Decoder> + 2 * kTileBytes + 2 * kTokens* kTokenRowBytes;

// A chunk of the block's weights to halves. In the order of place_of_column() a lane t of the tensor cores' second
// operand has places 8 t to 8 t + 7 of a block, so the first operand has places 8 p + 4 h + 2 u + v in column
// 16 h + 8 u + 2 p + v.
template <typename Decoder>
__device__ __forceinline__ void decode_chunk(const Decoder& decoder, const uint8_t* step, unsigned chunk,
                                             const HalfStep* steps, uint8_t* tile) {
#pragma unroll 1
  for (unsigned i = threadIdx.x; i < kGemmRows * kChunkBlocks; i += kGemmThreads) {
    // Neighbouring lanes take neighbouring rows, of one block.
    const unsigned row = i % kGemmRows, in_chunk = i / kGemmRows;
    uint32_t natural[16], halves[16];
    decode_halves<Decoder>(decoder, step + row / 16 * step_bytes(Decoder::kBits), row % 16,
                           chunk * kChunkBlocks + in_chunk, steps, natural);
#pragma unroll
    for (unsigned p = 0; p < 4; ++p)
#pragma unroll
      for (unsigned h = 0; h < 2; ++h)
#pragma unroll
        for (unsigned u = 0; u < 2; ++u) halves[8 * h + 4 * u + p] = natural[4 * p + 2 * h + u];
    auto* to = reinterpret_cast<uint4*>(tile + row * kRowBytes + 64 * in_chunk);
#pragma unroll
    for (unsigned j = 0; j < 4; ++j)
      to[j] = make_uint4(halves[4 * j], halves[4 * j + 1], halves[4 * j + 2], halves[4 * j + 3]);
  }
}

template <unsigned kTiles>  // of 8 tokens
__device__ __forceinline__ void multiply_chunk(const uint8_t* tile, const uint8_t* tokens, float (&acc)[2][kTiles][4]) {
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (unsigned block = 0; block < kChunkBlocks; ++block) {
    uint32_t a[2][2][4];
#pragma unroll
    for (unsigned p = 0; p < 2; ++p)
#pragma unroll
      for (unsigned h = 0; h < 2; ++h) {
        const uint8_t* at = tile + (32 * warp + 16 * p + lane % 16) * kRowBytes + 64 * block + 32 * h + lane / 16 * 16;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(a[p][h][0]), "=r"(a[p][h][1]), "=r"(a[p][h][2]), "=r"(a[p][h][3])
                     : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(at))));
      }
#pragma unroll
    for (unsigned j = 0; j < kTiles; ++j) {
      const uint4 b = *reinterpret_cast<const uint4*>(tokens + (8 * j + g) * kTokenRowBytes + 64 * block + 16 * t);
#pragma unroll
      for (unsigned p = 0; p < 2; ++p) {
        multiply_halves(acc[p][j], a[p][0], b.x, b.y);
        multiply_halves(acc[p][j], a[p][1], b.z, b.w);
      }
    }
  }
}

template <typename Decoder, unsigned kTiles>
__global__ void __launch_bounds__(kGemmThreads, 1)
    gemm(TrellisMatrix w, const __half* x, uint32_t width, const float* token_scales, uint32_t n, float* y,
         uint64_t stride, float* parts, uint32_t one) {
  constexpr unsigned kTokens = 8 * kTiles;
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ HalfStep steps[16];
  uint8_t* weights = shared;                             // [2][kWeightBytes]
  uint8_t* tiles = weights + 2 * kWeightBytes<Decoder>;  // [2][kTileBytes]
  uint8_t* tokens = tiles + 2 * kTileBytes;              // [2][kTokens][kTokenRowBytes]
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t first_token = blockIdx.x * kTokens, first_panel = blockIdx.y * (kGemmRows / 16);
  if (threadIdx.x < 16) steps[threadIdx.x] = half_step(w.block_steps[threadIdx.x]);
  const Decoder decoder(w, one, kOffset);
  constexpr unsigned kStep = step_bytes(Decoder::kBits);
  // The block's slice of the columns.
  const uint32_t first_step = w.steps * blockIdx.z / gridDim.z, end_step = w.steps * (blockIdx.z + 1) / gridDim.z;
  const uint32_t first_chunk = first_step * kChunks, end_chunk = end_step * kChunks;

  const auto fetch_weights = [&](uint32_t step) {
    uint8_t* to = weights + (step & 1) * kWeightBytes<Decoder>;
    for (unsigned i = threadIdx.x; i < kWeightBytes<Decoder> / 16; i += kGemmThreads) {
      const uint32_t panel = min(first_panel + i / (kStep / 16), w.panels - 1);
      copy16(to + 16 * i, w.data + (static_cast<uint64_t>(panel) * w.steps + step) * kStep + 16 * (i % (kStep / 16)));
    }
  };
  const auto fetch_tokens = [&](uint32_t chunk) {
    uint8_t* to = tokens + (chunk & 1) * kTokens * kTokenRowBytes;
    for (unsigned i = threadIdx.x; i < kTokens * (kChunkColumns / 8); i += kGemmThreads) {
      const uint32_t token = i / (kChunkColumns / 8), part = i % (kChunkColumns / 8);
      const uint32_t column = chunk * kChunkColumns + 8 * part;
      copy16(to + token * kTokenRowBytes + 16 * part,
             x + static_cast<uint64_t>(first_token + token) * width + place_of_columns(column, n <= kFewTokens));
    }
  };
  const auto decode = [&](uint32_t chunk) {
    decode_chunk<Decoder>(decoder, weights + (chunk / kChunks & 1) * kWeightBytes<Decoder>, chunk % kChunks, steps,
                          tiles + (chunk & 1) * kTileBytes);
  };

  float acc[2][kTiles][4] = {};
  fetch_weights(first_step);
  fetch_tokens(first_chunk);
  copies_end();
  copies_wait<0>();
  __syncthreads();
  decode(first_chunk);
#pragma unroll 1
  for (uint32_t chunk = first_chunk; chunk < end_chunk; ++chunk) {
    __syncthreads();
    // The next chunk's tokens, and weights two chunks before they are decoded.
    if (chunk + 1 < end_chunk) fetch_tokens(chunk + 1);
    if (chunk % kChunks == 0 && chunk / kChunks + 1 < end_step) fetch_weights(chunk / kChunks + 1);
    copies_end();
    const uint8_t* tile = tiles + (chunk & 1) * kTileBytes;
    const uint8_t* now = tokens + (chunk & 1) * kTokens * kTokenRowBytes;
    // Half of the warps decode first, so that both units have work.
    const bool more = chunk + 1 < end_chunk, first = warp / 4 % 2 == 0;
    if (first && more) decode(chunk + 1);
    multiply_chunk<kTiles>(tile, now, acc);
    if (!first && more) decode(chunk + 1);
    copies_wait<0>();
  }
#pragma unroll
  for (unsigned p = 0; p < 2; ++p) {
    const uint32_t panel = first_panel + 2 * warp + p;
    if (panel >= w.panels) continue;
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      const uint32_t row = 16 * panel + g + 8 * half;
      if (row >= w.rows) continue;
      const float row_scale = w.row_scales[row] * kHalfUnit;
#pragma unroll
      for (unsigned j = 0; j < kTiles; ++j) {
#pragma unroll
        for (unsigned e = 0; e < 2; ++e) {
          const uint32_t token = first_token + 8 * j + 2 * t + e;
          if (token >= n) continue;
          const float value = acc[p][j][2 * half + e] * row_scale * token_scales[token];
          if (gridDim.z > 1) {
            parts[(static_cast<uint64_t>(blockIdx.z) * n + token) * 16 * w.panels + row] = value;
          } else {
            y[token * stride + row] = value;
          }
        }
      }
    }
  }
}

RowParts parts_of(const TrellisMatrix& w, const GemmResources& resources, uint32_t slices, uint32_t n) {
  return {resources.parts, slices, uint64_t{n} * 16 * w.panels, uint64_t{16} * w.panels};
}

template <typename Decoder, unsigned kTiles>
cudaError_t start(const TrellisMatrix& w, HalfTokens x, uint32_t n, float* y, uint64_t stride,
                  const GemmResources& resources, RowParts* where, Queue queue) {
  constexpr unsigned kShared = kSharedBytes<Decoder, 8 * kTiles>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(gemm<Decoder, kTiles>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (allowed != cudaSuccess) return allowed;
  dim3 grid((n + 8 * kTiles - 1) / (8 * kTiles), (w.panels + kGemmRows / 16 - 1) / (kGemmRows / 16));
  // A matrix of few rows is cut into slices of columns, so that all multiprocessors have work.
  if (n <= kSlicedTokens) grid.z = min(max(resources.multiprocessors / (grid.x * grid.y), 1u), w.steps);
  gemm<Decoder, kTiles><<<grid, kGemmThreads, kShared, queue.stream>>>(w, static_cast<const __half*>(x.values), x.width,
                                                                       x.scales, n, y, stride, resources.parts, 1);
  if (grid.z > 1) *where = parts_of(w, resources, grid.z, n);
  return cudaGetLastError();
}

template <typename Decoder>
cudaError_t start_for(const TrellisMatrix& w, HalfTokens x, uint32_t n, float* y, uint64_t stride,
                      const GemmResources& resources, RowParts* where, Queue queue) {
  if (n <= 32 || kSharedBytes<Decoder, kGemmTokens> + 1024 > resources.shared_limit)
    return start<Decoder, 4>(w, x, n, y, stride, resources, where, queue);
  return start<Decoder, kGemmTokens / 8>(w, x, n, y, stride, resources, where, queue);
}

}  // namespace

uint64_t gemm_part_floats(const TrellisMatrix& w, uint32_t few, uint32_t multiprocessors) {
  // All slices of up to kSlicedTokens, and five of the few tokens.
  return max(uint64_t{kSlicedTokens} * multiprocessors * kGemmRows, uint64_t{5} * few * 16 * w.panels);
}

bool can_multiply_tokens(uint32_t shared_limit) { return kSharedBytes<Lookups<4>, 32> + 1024 <= shared_limit; }

cudaError_t multiply_tokens(const TrellisMatrix& w, HalfTokens x, uint32_t n, float* y, uint64_t stride,
                            const GemmResources& resources, RowParts* where, Queue queue) {
  const FewParts few = x.together > 0 ? multiply_few_tokens_wide(w, x, n, resources, queue)
                                      : multiply_few_tokens(w, x, n, resources, queue);
  if (few.slices > 0) *where = parts_of(w, resources, few.slices, n);
  if (few.status != cudaSuccess || few.slices > 0) return few.status;
  *where = {y, 1, 0, stride};
  if (resources.wide && n > kGemmTokens) return multiply_tokens_wide(w, x, n, y, stride, queue);
  return with_bytes(w, [&](auto decoder) {
    return start_for<typename decltype(decoder)::type>(w, x, n, y, stride, resources, where, queue);
  });
}

}  // namespace upg::cuda
