// Attention of several runs of one token each: a block takes the query heads that share keys and values, of one token,
// and where that gives too few blocks a part of the positions.
#include <algorithm>

#include "cuda/attend.cuh"
#include "cuda/batch.h"
#include "cuda/launch.cuh"

namespace upg::cuda {
namespace {

constexpr unsigned kSingleWarps = 4, kSingleThreads = 32 * kSingleWarps;
constexpr unsigned kResidentBlocks = 3;     // of a multiprocessor
constexpr unsigned kFewestPositions = 256;  // of a block, where positions are split
constexpr unsigned kAhead = 4;              // positions that a half warp has under way

struct SingleShape {
  uint32_t chunks, splits;  // groups of query heads of a kv head; parts of the positions
};

SingleShape shape_of(const Stage& s, uint32_t n, uint32_t longest, uint32_t multiprocessors) {
  const uint32_t chunks = (s.heads / s.kv_heads + kHeadGroup - 1) / kHeadGroup;
  const uint32_t blocks = n * s.kv_heads * chunks, resident = kResidentBlocks * multiprocessors;
  const uint32_t most = std::max(longest / kFewestPositions, 1u);
  return {chunks, std::clamp(resident / blocks, 1u, most)};
}

// Shared: queries [kHeadGroup][head_dim], shares [kSingleWarps / 2][kHeadGroup][head_dim + 2].
template <typename Cache>
__global__ void __launch_bounds__(kSingleThreads, kResidentBlocks)
    attend_kernel(Stage constants, const TokenRow* rows, const CachePlace* places, uint32_t layer, SingleShape shape,
                  float* partial, float* x) {
  __shared__ float q[kHeadGroup * kMaxHeadDim];
  __shared__ float shares[kSingleWarps / 2 * kHeadGroup * (kMaxHeadDim + 2)];
  wait_for_kernel_before();
  let_next_kernel_start();
  const uint32_t token = blockIdx.y, unit = blockIdx.x, split = blockIdx.z;
  const TokenRow where = rows[token];
  const Stage s = at_place(constants, places[where.place], layer);
  const uint32_t d = s.head_dim, stride = d + 2, group = s.heads / s.kv_heads, kv = unit / shape.chunks;
  const uint32_t first_head = kv * group + unit % shape.chunks * kHeadGroup;
  const uint32_t heads = min(kHeadGroup, group - unit % shape.chunks * kHeadGroup);
  const uint32_t end = where.position + 1, first = s.window != 0 && end > s.window ? end - s.window : 0;
  const uint32_t each = (end - first + shape.splits - 1) / shape.splits;
  const uint32_t from = min(first + split * each, end), to = min(from + each, end);
  float* of_token = x + (static_cast<uint64_t>(token) * s.heads + first_head) * d;
  const uint64_t first_vector = static_cast<uint64_t>(kv) * s.capacity;
  Loaded<Cache, kAhead, kSingleWarps> loaded;
  loaded.load(s, first_vector, from, to);
  for (uint32_t i = threadIdx.x; i < kHeadGroup * d; i += kSingleThreads) q[i] = i < heads * d ? of_token[i] : 0.0f;
  __syncthreads();
  attend_positions<Cache, kHeadGroup>(s, first_vector, from, to, loaded, q, nullptr, shares);
  if (shape.splits > 1) {
    float* mine =
        partial + ((static_cast<uint64_t>(token) * gridDim.x + unit) * shape.splits + split) * kHeadGroup * stride;
    for (uint32_t i = threadIdx.x; i < heads * stride; i += kSingleThreads)
      mine[i] = merged_share(kSingleWarps / 2, kHeadGroup, stride, i, shares);
    return;
  }
  for (uint32_t i = threadIdx.x; i < heads * d; i += kSingleThreads) {
    const uint32_t h = i / d;
    of_token[i] = merged(kSingleWarps / 2, i - h * d,
                         [&](uint32_t w, uint32_t e) { return shares[(w * kHeadGroup + h) * stride + e]; });
  }
}

// A block a token and unit.
__global__ void __launch_bounds__(kSingleThreads)
    merge_kernel(Stage s, SingleShape shape, const float* partial, float* x) {
  wait_for_kernel_before();
  let_next_kernel_start();
  const uint32_t token = blockIdx.y, unit = blockIdx.x, d = s.head_dim, stride = d + 2, group = s.heads / s.kv_heads;
  const uint32_t first_head = unit / shape.chunks * group + unit % shape.chunks * kHeadGroup;
  const uint32_t heads = min(kHeadGroup, group - unit % shape.chunks * kHeadGroup);
  const float* all = partial + (static_cast<uint64_t>(token) * gridDim.x + unit) * shape.splits * kHeadGroup * stride;
  for (uint32_t i = threadIdx.x; i < heads * d; i += kSingleThreads) {
    const uint32_t h = i / d;
    x[(static_cast<uint64_t>(token) * s.heads + first_head) * d + i] = merged(
        shape.splits, i - h * d,
        [&](uint32_t part, uint32_t e) { return all[(static_cast<uint64_t>(part) * kHeadGroup + h) * stride + e]; });
  }
}

}  // namespace

uint64_t attend_partial_floats(uint32_t head_dim, uint32_t multiprocessors) {
  return uint64_t{kResidentBlocks} * multiprocessors * kHeadGroup * (head_dim + 2);  // positions are split no further
}

cudaError_t attend_singles(const Stage& s, const TokenRow* rows, const CachePlace* places, uint32_t layer, uint32_t n,
                           uint32_t longest, uint32_t multiprocessors, float* partial, float* x, Queue queue) {
  const SingleShape shape = shape_of(s, n, longest, multiprocessors);
  const dim3 grid(s.kv_heads * shape.chunks, n, shape.splits);
  const auto kernel = s.int8_cache ? attend_kernel<Int8Cache> : attend_kernel<F16Cache>;
  const cudaError_t status =
      chain(queue, kernel, grid, dim3(kSingleThreads), 0, 1, s, rows, places, layer, shape, partial, x);
  if (status != cudaSuccess || shape.splits == 1) return status;
  return chain(queue, merge_kernel, dim3(grid.x, n), dim3(kSingleThreads), 0, 1, s, shape, partial, x);
}

}  // namespace upg::cuda
