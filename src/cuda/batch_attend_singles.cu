// Attention of several runs of one token each: a block takes the query heads that share keys and values, of one token,
// and where that gives too few blocks a part of the positions. It turns the queries and adds the new key and value
// itself.
#include <algorithm>

#include "cuda/attend.cuh"
#include "cuda/batch.h"
#include "cuda/launch.cuh"
#include "cuda/row_parts.cuh"

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

constexpr unsigned kShares = shares_of_warps(kSingleWarps, kHeadGroup);  // and the new position's
constexpr uint32_t kFetchedPositions = 128;  // of a block: keys and values of all of them have room in the cache

template <typename Cache>
__global__ void __launch_bounds__(kSingleThreads, kResidentBlocks)
    attend_kernel(Stage constants, RowParts qkv, const TokenRow* rows, const CachePlace* places, uint32_t layer,
                  SingleShape shape, float* partial, float* x) {
  __shared__ __align__(16) QueryTile queries;
  __shared__ __align__(16) float shares[(kShares + 1) * kHeadGroup * (kMaxHeadDim + 2)];
  __shared__ float fresh[2 * kMaxHeadDim], angles[kMaxHeadDim], scales[kHeadGroup + 1];
  float* raw = shares;  // before there are any
  static_assert((kHeadGroup + 2) * kMaxHeadDim <= kShares * kHeadGroup * (kMaxHeadDim + 2));
  const uint32_t token = blockIdx.y, unit = blockIdx.x, split = blockIdx.z;
  const TokenRow where = rows[token];
  const Stage s = at_place(constants, places[token], layer);  // a run each, and these come first
  const uint32_t d = s.head_dim, stride = d + 2, group = s.heads / s.kv_heads, kv = unit / shape.chunks;
  const uint32_t first_head = kv * group + unit % shape.chunks * kHeadGroup;
  const uint32_t heads = min(kHeadGroup, group - unit % shape.chunks * kHeadGroup);
  const uint32_t end = where.position + 1, first = s.window != 0 && end > s.window ? end - s.window : 0;
  const uint32_t each = (end - first + shape.splits - 1) / shape.splits;
  const uint32_t from = min(first + split * each, end), to = min(from + each, end);
  const bool owner = from < end && to == end;
  const uint32_t cached = owner ? end - 1 : to;
  // What earlier passes left there depends on nothing of this one.
  const uint32_t first_vector = kv * s.capacity;
  const Positions<Cache> positions(s, first_vector, cached);
  Loaded<Cache> loaded;
  loaded.load_keys(positions, first_of_warp(from));
  loaded.load_values(positions, first_of_warp(from));
  for (const void* all : {s.keys, s.values})
    fetch_vectors(s, all, first_vector + from, min(cached - from, kFetchedPositions), threadIdx.x, kSingleThreads);
  wait_for_kernel_before();
  let_next_kernel_start();
  for (uint32_t i = threadIdx.x; i < s.rotary_dim; i += kSingleThreads)
    angles[i] = s.angles[static_cast<uint64_t>(where.position) * s.rotary_dim + i];
  // A warp two heads.
  static_assert(kHeadGroup + 2 <= 2 * kSingleWarps);
  if (const uint32_t i = threadIdx.x % 32 * 4; i < d) {
    const uint32_t n = heads + (owner ? 2 : 0), h = threadIdx.x / 32;
    const uint32_t of_block[2] = {min(h, n - 1), min(h + kSingleWarps, n - 1)};
    uint32_t c[2];
#pragma unroll
    for (unsigned k = 0; k < 2; ++k)
      c[k] =
          (of_block[k] < heads ? first_head + of_block[k] : s.heads + kv + (of_block[k] - heads) * s.kv_heads) * d + i;
    float4 sums[2];
    sum_parts<2, 4>(qkv, token, c, sums);
#pragma unroll
    for (unsigned k = 0; k < 2; ++k) {
      if (s.bias != nullptr) sums[k] = sum_of(sums[k], load4(s.bias + c[k], true));
      *reinterpret_cast<float4*>(raw + of_block[k] * kMaxHeadDim + i) = sums[k];
    }
  }
  __syncthreads();
  take_heads<kSingleWarps>(s, raw, angles, heads, owner, first_vector + where.position, queries, fresh, scales,
                           shares + kShares * kHeadGroup * stride);
  attend_positions<Cache, kSingleWarps>(positions, from, cached, d, kHeadGroup, loaded, queries, shares);
  const uint32_t n_shares = kShares + owner;
  const auto share = [&](uint32_t k, uint32_t h, uint32_t e) { return shares[(k * kHeadGroup + h) * stride + e]; };
  float* mine =
      partial + ((static_cast<uint64_t>(token) * gridDim.x + unit) * shape.splits + split) * kHeadGroup * stride;
  float* of_token = x + (static_cast<uint64_t>(token) * s.heads + first_head) * d;
  for (uint32_t k = threadIdx.x; k < heads * d; k += kSingleThreads) {
    const uint32_t h = k / d, i = k - h * d;
    const Merged m = merge_shares(n_shares, h, i, share);
    if (shape.splits == 1) {
      of_token[k] = m.value / m.total;
      continue;
    }
    mine[h * stride + 2 + i] = m.value;
    if (i == 0) {
      mine[h * stride] = m.top;
      mine[h * stride + 1] = m.total;
    }
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

cudaError_t attend_singles(const Stage& s, RowParts qkv, const TokenRow* rows, const CachePlace* places, uint32_t layer,
                           uint32_t n, uint32_t longest, uint32_t multiprocessors, float* partial, float* x,
                           Queue queue) {
  const SingleShape shape = shape_of(s, n, longest, multiprocessors);
  const dim3 grid(s.kv_heads * shape.chunks, n, shape.splits);
  const auto kernel = s.int8_cache ? attend_kernel<Int8Cache> : attend_kernel<F16Cache>;
  const cudaError_t status =
      chain(queue, kernel, grid, dim3(kSingleThreads), 0, 1, s, qkv, rows, places, layer, shape, partial, x);
  if (status != cudaSuccess || shape.splits == 1) return status;
  return chain(queue, merge_kernel, dim3(grid.x, n), dim3(kSingleThreads), 0, 1, s, shape, partial, x);
}

}  // namespace upg::cuda
