#include <math.h>

#include <algorithm>

#include "cuda/sample.h"
#include "cuda/warp.cuh"

namespace upg::cuda {
namespace {

constexpr uint32_t kThreads = 512;
constexpr uint32_t kWarps = kThreads / 32;
constexpr uint32_t kThreadBins = kSampleBins / kThreads;
constexpr uint32_t kAll = 0xffffffffu;
// A key's highest 11 bits are its coarse bin, the next 11 its fine one.
constexpr uint32_t kCoarseShift = 21, kFineShift = 10;

// Both zeros have one key.
__device__ uint32_t sort_key(float x) {
  if (isnan(x)) return kAll;
  const uint32_t bits = x == 0 ? 0u : __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ void clear(uint32_t* bins) {
  for (uint32_t i = threadIdx.x; i < kSampleBins; i += kThreads) bins[i] = 0;
  __syncthreads();
}

// Adds a block's histogram to all blocks'.
__device__ void add(const uint32_t* bins, uint32_t* to) {
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < kSampleBins; i += kThreads)
    if (bins[i] != 0) atomicAdd(to + i, bins[i]);
}

// A row a y of the grid.
struct Rows {
  SampleArgs rows[kSampleRows];
};

struct Place {
  uint32_t bin, above, inside;  // keys in higher bins, and in this one
};

// The bin of the `wanted`-th largest key, 1 to the number of all keys. To be called by all threads.
__device__ Place find_bin(const uint32_t* bins, uint32_t wanted) {
  __shared__ uint32_t of_warps[kWarps];
  __shared__ Place place;
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  // The first thread has the highest bins.
  const uint32_t first = kSampleBins - kThreadBins * (threadIdx.x + 1);
  uint32_t counts[kThreadBins], mine = 0;
#pragma unroll
  for (uint32_t i = 0; i < kThreadBins; ++i) mine += counts[i] = bins[first + i];
  uint32_t upto = mine;
#pragma unroll
  for (uint32_t d = 1; d < 32; d *= 2) {
    const uint32_t before = __shfl_up_sync(kAll, upto, d);
    if (lane >= d) upto += before;
  }
  if (lane == 31) of_warps[warp] = upto;
  __syncthreads();
  uint32_t above = upto - mine;
  for (uint32_t i = 0; i < warp; ++i) above += of_warps[i];
  if (above < wanted && wanted <= above + mine) {
#pragma unroll
    for (uint32_t i = kThreadBins; i-- > 0;) {
      if (above < wanted && wanted <= above + counts[i]) place = {first + i, above, counts[i]};
      above += counts[i];
    }
  }
  __syncthreads();
  return place;
}

// What the others work on: empty histograms, and logits without those set apart.
__global__ void __launch_bounds__(kThreads) begin_kernel(const __grid_constant__ Rows rows) {
  const SampleArgs& a = rows.rows[blockIdx.y];
  const uint32_t thread = blockIdx.x * kThreads + threadIdx.x;
  if (thread < 2 * kSampleBins) a.bins[thread] = 0;
  if (thread == 0) a.result->top = a.result->listed = 0;
  for (uint32_t i = thread; i < a.apart_count; i += gridDim.x * kThreads) {
    float* logit = a.logits + a.tokens[i];
    a.apart[i] = *logit;
    *logit = -INFINITY;
  }
}

__global__ void __launch_bounds__(kThreads) coarse_kernel(const __grid_constant__ Rows rows) {
  const SampleArgs& a = rows.rows[blockIdx.y];
  __shared__ uint32_t bins[kSampleBins];
  __shared__ uint32_t top;
  if (threadIdx.x == 0) top = 0;
  clear(bins);
  uint32_t mine = 0;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < a.vocab; i += gridDim.x * kThreads) {
    const uint32_t key = sort_key(a.logits[i]);
    atomicAdd(bins + (key >> kCoarseShift), 1u);
    mine = max(mine, key);
  }
  mine = warp_max(mine);
  if (threadIdx.x % 32 == 0) atomicMax(&top, mine);
  add(bins, a.bins);
  if (threadIdx.x == 0) atomicMax(&a.result->top, top);
}

__global__ void __launch_bounds__(kThreads) fine_kernel(const __grid_constant__ Rows rows) {
  const SampleArgs& a = rows.rows[blockIdx.y];
  __shared__ uint32_t bins[kSampleBins];
  clear(bins);
  const Place coarse = find_bin(a.bins, a.count);
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < a.vocab; i += gridDim.x * kThreads) {
    const uint32_t key = sort_key(a.logits[i]);
    if (key >> kCoarseShift == coarse.bin) atomicAdd(bins + (key >> kFineShift) % kSampleBins, 1u);
  }
  add(bins, a.bins + kSampleBins);
}

// exp is within an ulp of the exact value, the sums' order is always the same.
__global__ void __launch_bounds__(kThreads) collect_kernel(const __grid_constant__ Rows rows) {
  const SampleArgs& a = rows.rows[blockIdx.y];
  const Place coarse = find_bin(a.bins, a.count);
  const Place fine = find_bin(a.bins + kSampleBins, a.count - coarse.above);
  uint32_t threshold = coarse.bin * kSampleBins + fine.bin;
  if (coarse.above + fine.above + fine.inside > a.room) ++threshold;
  const double top = logit_of_key(a.result->top), temperature = a.temperature;
  const uint32_t lane = threadIdx.x % 32;
  double sum = 0;
  for (uint32_t base = blockIdx.x * kThreads; base < a.vocab; base += gridDim.x * kThreads) {
    const uint32_t i = base + threadIdx.x;
    const float logit = i < a.vocab ? a.logits[i] : -INFINITY;
    if (a.temperature > 0) sum += exp((logit - top) / temperature);
    const bool listed = logit > -INFINITY && sort_key(logit) >> kFineShift >= threshold;
    const uint32_t lanes = __ballot_sync(kAll, listed);
    if (lanes == 0) continue;
    uint32_t slot = 0;
    if (lane == 0) slot = atomicAdd(&a.result->listed, __popc(lanes));
    slot = __shfl_sync(kAll, slot, 0) + __popc(lanes & ((1u << lane) - 1));
    if (listed && slot < a.room) a.list[slot] = {static_cast<int32_t>(i), logit};
  }
  sum = warp_sum(sum);
  __shared__ double sums[kWarps];
  if (lane == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  sum = 0;
  for (double of_warp : sums) sum += of_warp;
  a.result->sums[blockIdx.x] = sum;
}

}  // namespace

cudaError_t find_candidates(const SampleArgs* rows, uint32_t n, cudaStream_t stream) {
  static_assert(kSampleBlocks * kThreads >= 2 * kSampleBins, "a thread a bin");
  for (uint32_t at = 0; at < n; at += kSampleRows) {
    Rows now{};
    const uint32_t count = std::min(n - at, +kSampleRows);
    std::copy_n(rows + at, count, now.rows);
    const dim3 blocks(kSampleBlocks, count);
    begin_kernel<<<blocks, kThreads, 0, stream>>>(now);
    coarse_kernel<<<blocks, kThreads, 0, stream>>>(now);
    fine_kernel<<<blocks, kThreads, 0, stream>>>(now);
    collect_kernel<<<blocks, kThreads, 0, stream>>>(now);
  }
  return cudaGetLastError();
}

}  // namespace upg::cuda
