#include "codec/layout/mdcsr.h"
#include "cuda/product.cuh"
#include "cuda/spmv.h"

namespace upg::cuda {
namespace {

constexpr unsigned kRowThreads = 128;
constexpr unsigned kVectors = 8;             // of a thread of the batched kernel
constexpr unsigned kSharedFloats = 48 << 8;  // 48 KiB: what every block may have
constexpr unsigned kRowsOfBlock = 4;         // a warp each

// What an entry is worth but for its row's scale; `place` is its number.
__device__ __forceinline__ float entry_value(const SparseMatrix& w, int value, uint32_t place) {
  float v = static_cast<float>(value);
  if (w.prime_indices != nullptr) v = __fadd_rn(v, __ldg(w.prime_levels + __ldg(w.prime_indices + place)));
  return v;
}

// A row a thread. Neighbouring threads read far apart: this is what the others are measured against.
__global__ void __launch_bounds__(kRowThreads) by_rows(SparseMatrix w, const float* x, float* y) {
  const uint32_t row = blockIdx.x * kRowThreads + threadIdx.x;
  if (row >= w.rows) return;
  uint32_t column = 0;
  float sum = 0;
  for (uint32_t k = w.row_pointers[row]; k < w.row_pointers[row + 1]; ++k) {
    column += __ldg(w.deltas + k);
    const int value = __ldg(w.values + k);
    if (value != kSkipValue) sum = fmaf(entry_value(w, value, k), __ldg(x + column), sum);
  }
  y[row] = sum * w.scales[row];
}

// The same with the vector in shared memory, a part of it at a time: each thread waits where its row reaches the end of
// a part.
__global__ void __launch_bounds__(kRowThreads) by_rows_shared(SparseMatrix w, const float* x, float* y) {
  __shared__ float part[kSharedFloats];
  const uint32_t row = blockIdx.x * kRowThreads + threadIdx.x;
  const bool inside = row < w.rows;
  uint32_t k = inside ? w.row_pointers[row] : 0;
  const uint32_t end = inside ? w.row_pointers[row + 1] : 0;
  uint32_t column = 0;
  float sum = 0;
  for (uint32_t first = 0; first < w.cols; first += kSharedFloats) {
    const uint32_t n = min(kSharedFloats, w.cols - first);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < n; i += kRowThreads) part[i] = x[first + i];
    __syncthreads();
    for (; k < end; ++k) {
      const uint32_t next = column + __ldg(w.deltas + k);
      if (next >= first + n) break;
      column = next;
      const int value = __ldg(w.values + k);
      if (value != kSkipValue) sum = fmaf(entry_value(w, value, k), part[column - first], sum);
    }
  }
  if (inside) y[row] = sum * w.scales[row];
}

// A row and kVectors vectors a thread: entries are read once for all.
__global__ void __launch_bounds__(kRowThreads) by_rows_batched(SparseMatrix w, const float* x, uint32_t n, float* y) {
  const uint32_t row = blockIdx.x * kRowThreads + threadIdx.x, first = blockIdx.y * kVectors;
  if (row >= w.rows) return;
  uint32_t column = 0;
  float sums[kVectors] = {};
  for (uint32_t k = w.row_pointers[row]; k < w.row_pointers[row + 1]; ++k) {
    column += __ldg(w.deltas + k);
    const int value = __ldg(w.values + k);
    if (value == kSkipValue) continue;
    const float v = entry_value(w, value, k);
#pragma unroll
    for (unsigned t = 0; t < kVectors; ++t)
      if (first + t < n) sums[t] = fmaf(v, __ldg(x + static_cast<uint64_t>(first + t) * w.cols + column), sums[t]);
  }
#pragma unroll
  for (unsigned t = 0; t < kVectors; ++t)
    if (first + t < n) y[static_cast<uint64_t>(first + t) * w.rows + row] = sums[t] * w.scales[row];
}

// A warp a row: lanes take four entries each, side by side, and add up the distances before them.
__global__ void __launch_bounds__(32 * kRowsOfBlock) by_warps(SparseMatrix w, const float* x, float* y) {
  const uint32_t row = blockIdx.x * kRowsOfBlock + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= w.rows) return;
  const uint32_t begin = w.row_pointers[row], end = w.row_pointers[row + 1];
  uint32_t column = 0;
  float sum = 0;
  // From the multiple of 4 before the row's first entry: what is not the row's counts for nothing.
  for (uint64_t k = begin & ~3u; k < end; k += 128) {
    const uint64_t at = k + 4 * lane;
    const bool some = at < end;
    const uint32_t deltas = some ? __ldg(reinterpret_cast<const uint32_t*>(w.deltas + at)) : 0;
    const uint32_t values = some ? __ldg(reinterpret_cast<const uint32_t*>(w.values + at)) : 0;
    uint32_t distance[4], before = 0;
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
      const bool mine = at + i >= begin && at + i < end;
      distance[i] = before += mine ? (deltas >> (8 * i)) & 255u : 0;
    }
    uint32_t total = before;
#pragma unroll
    for (unsigned d = 1; d < 32; d *= 2) {
      const uint32_t other = __shfl_up_sync(0xffffffffu, total, d);
      if (lane >= d) total += other;
    }
    const uint32_t first = column + total - before;
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
      const int value = static_cast<int8_t>(values >> (8 * i));
      if (at + i >= begin && at + i < end && value != kSkipValue)
        sum = fmaf(entry_value(w, value, static_cast<uint32_t>(at + i)), __ldg(x + first + distance[i]), sum);
    }
    column += __shfl_sync(0xffffffffu, total, 31);
  }
  sum = warp_sum(sum);
  if (lane == 0) y[row] = sum * w.scales[row];
}

unsigned blocks_for(uint32_t rows, unsigned each) { return (rows + each - 1) / each; }

}  // namespace

cudaError_t spmv_basic(const SparseMatrix& w, const float* x, uint32_t n, float* y, cudaStream_t stream) {
  for (uint32_t t = 0; t < n; ++t)
    by_rows<<<blocks_for(w.rows, kRowThreads), kRowThreads, 0, stream>>>(w, x + static_cast<uint64_t>(t) * w.cols,
                                                                         y + static_cast<uint64_t>(t) * w.rows);
  return cudaGetLastError();
}

cudaError_t spmv_shared(const SparseMatrix& w, const float* x, uint32_t n, float* y, cudaStream_t stream) {
  for (uint32_t t = 0; t < n; ++t)
    by_rows_shared<<<blocks_for(w.rows, kRowThreads), kRowThreads, 0, stream>>>(
        w, x + static_cast<uint64_t>(t) * w.cols, y + static_cast<uint64_t>(t) * w.rows);
  return cudaGetLastError();
}

cudaError_t spmv_batched(const SparseMatrix& w, const float* x, uint32_t n, float* y, cudaStream_t stream) {
  by_rows_batched<<<dim3(blocks_for(w.rows, kRowThreads), blocks_for(n, kVectors)), kRowThreads, 0, stream>>>(w, x, n,
                                                                                                              y);
  return cudaGetLastError();
}

cudaError_t spmv_warp(const SparseMatrix& w, const float* x, uint32_t n, float* y, cudaStream_t stream) {
  for (uint32_t t = 0; t < n; ++t)
    by_warps<<<blocks_for(w.rows, kRowsOfBlock), 32 * kRowsOfBlock, 0, stream>>>(
        w, x + static_cast<uint64_t>(t) * w.cols, y + static_cast<uint64_t>(t) * w.rows);
  return cudaGetLastError();
}

}  // namespace upg::cuda
