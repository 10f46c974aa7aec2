// Attention of several runs of one token each: a block takes the query heads that share keys and values, of one token,
// and where that gives too few blocks a part of the positions.
#include <algorithm>

#include "cuda/attend_positions.cuh"
#include "cuda/batch.h"
#include "cuda/launch.cuh"

namespace upg::cuda {
namespace {

constexpr unsigned kSingleWarps = 4, kSingleThreads = 32 * kSingleWarps;
constexpr unsigned kResidentBlocks = 3;     // of a multiprocessor
constexpr unsigned kFewestPositions = 256;  // of a block, where positions are split
constexpr unsigned kMostSplits = 128;

struct SingleShape {
  uint32_t chunks, splits;  // groups of query heads of a kv head; parts of the positions
};

SingleShape shape_of(const Stage& s, uint32_t n, uint32_t longest, uint32_t multiprocessors) {
  const uint32_t chunks = (s.heads / s.kv_heads + kHeadGroup - 1) / kHeadGroup;
  const uint32_t blocks = n * s.kv_heads * chunks, resident = kResidentBlocks * multiprocessors;
  const uint32_t most = std::clamp(longest / kFewestPositions, 1u, kMostSplits);
  return {chunks, std::clamp(resident / blocks, 1u, most)};
}

constexpr unsigned kShares = shares_of_warps(kSingleWarps, kHeadGroup);

template <typename Cache>
__global__ void __launch_bounds__(kSingleThreads, kResidentBlocks)
    attend_kernel(Stage constants, const TokenRow* rows, const CachePlace* places, uint32_t layer, SingleShape shape,
                  float* partial, float* x) {
  __shared__ __align__(16) QueryTile queries;
  __shared__ __align__(16) float shares[kShares * kHeadGroup * (kMaxHeadDim + 2)];
  __shared__ float weights[weights_floats(kShares)];
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
  const uint32_t first_vector = kv * s.capacity;
  const Positions<Cache> positions(s, first_vector, to);
  Loaded<Cache> loaded;
  loaded.load_keys(positions, first_of_warp(from));
  loaded.load_values(positions, first_of_warp(from));
  const float factor = score_factor(s);
  for (uint32_t k = threadIdx.x; k < kHeadGroup * kMaxHeadDim; k += kSingleThreads) {
    const uint32_t h = k / kMaxHeadDim, i = k % kMaxHeadDim;
    queries.put(h, i, h < heads && i < d ? factor * of_token[h * d + i] : 0.0f);
  }
  __syncthreads();
  attend_positions<Cache, kSingleWarps>(positions, from, to, d, kHeadGroup, loaded, queries, shares);
  const auto share = [&](uint32_t k, uint32_t h, uint32_t e) { return shares[(k * kHeadGroup + h) * stride + e]; };
  weigh_shares(kShares, heads, share, weights);
  if (shape.splits > 1) {
    float* mine =
        partial + ((static_cast<uint64_t>(token) * gridDim.x + unit) * shape.splits + split) * kHeadGroup * stride;
    for (uint32_t i = threadIdx.x; i < heads * stride; i += kSingleThreads)
      mine[i] = merged_element(kShares, i / stride, i % stride, share, weights);
    return;
  }
  for (uint32_t i = threadIdx.x; i < heads * d; i += kSingleThreads) {
    const uint32_t h = i / d;
    of_token[i] = merged(kShares, h, i - h * d, share, weights);
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
  const auto part = [&](uint32_t k, uint32_t h, uint32_t e) {
    return all[(static_cast<uint64_t>(k) * kHeadGroup + h) * stride + e];
  };
  __shared__ float weights[weights_floats(kMostSplits)];
  weigh_shares(shape.splits, heads, part, weights);
  for (uint32_t i = threadIdx.x; i < heads * d; i += kSingleThreads) {
    const uint32_t h = i / d;
    x[(static_cast<uint64_t>(token) * s.heads + first_head) * d + i] =
        merged(shape.splits, h, i - h * d, part, weights);
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
