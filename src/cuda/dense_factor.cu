// H = M D M^T by blocks of 64 columns from the last to the first, and rows times H^-1 by the same blocks.
#include "cuda/dense.h"

namespace upg::cuda {
namespace {

constexpr unsigned kBlock = 64;
constexpr uint32_t kThreads = 256, kMostRows = 32768;  // of a launch

// The block's own 64 x 64, by 64 threads: thread j has column j. To `block` [64][64], the factor with row k times D[k].
__global__ void __launch_bounds__(kBlock)
    eliminate_block(float* a, uint32_t n, uint32_t begin, float floor, float* block) {
  __shared__ float s[kBlock][kBlock + 1];
  const unsigned j = threadIdx.x;
  for (unsigned k = 0; k < kBlock; ++k) s[k][j] = a[uint64_t{begin + k} * n + begin + j];
  __syncthreads();
  for (unsigned k = kBlock; k-- > 0;) {
    if (j <= k) {
      float x = s[k][j];
      for (unsigned later = kBlock - 1; later > k; --later) x -= s[later][k] * s[later][later] * s[later][j];
      s[k][j] = x;
    }
    __syncthreads();
    if (j == k) s[k][k] = fmaxf(s[k][k], floor);
    __syncthreads();
    if (j < k) s[k][j] *= 1.0f / s[k][k];
    __syncthreads();
  }
  for (unsigned k = 0; k < kBlock; ++k) {
    if (j <= k) a[uint64_t{begin + k} * n + begin + j] = s[k][j];
    block[k * kBlock + j] = j < k ? s[k][j] * s[k][k] : 1.0f / s[k][k];
  }
}

// The block's rows in the columns before it: a thread a column. `plain` [begin][64] is their transpose, `scaled` the
// same times D.
__global__ void __launch_bounds__(128)
    eliminate_rows(float* a, uint32_t n, uint32_t begin, const float* block, float* plain, float* scaled) {
  __shared__ float s[kBlock * kBlock];
  for (unsigned i = threadIdx.x; i < kBlock * kBlock; i += blockDim.x) s[i] = block[i];
  __syncthreads();
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= begin) return;
  float* column = a + uint64_t{begin} * n + i;
  float v[kBlock];
#pragma unroll
  for (unsigned k = 0; k < kBlock; ++k) v[k] = column[uint64_t{k} * n];
#pragma unroll
  for (unsigned k = kBlock; k-- > 0;) {
    v[k] *= s[k * kBlock + kBlock - 1];  // D^-1 fills its row from the diagonal on
#pragma unroll
    for (unsigned before = 0; before < k; ++before) v[before] -= s[k * kBlock + before] * v[k];
  }
#pragma unroll
  for (unsigned k = 0; k < kBlock; ++k) {
    column[uint64_t{k} * n] = v[k];
    plain[uint64_t{i} * kBlock + k] = v[k];
    scaled[uint64_t{i} * kBlock + k] = v[k] / s[k * kBlock + kBlock - 1];
  }
}

// Columns [begin, begin + 64) of each row: a thread a row.
template <bool kForward>
__global__ void __launch_bounds__(64)
    solve_block(const float* a, uint32_t n, uint32_t begin, float* rows, uint32_t n_rows) {
  __shared__ float s[kBlock][kBlock];
  for (unsigned k = 0; k < kBlock; ++k) s[k][threadIdx.x] = a[uint64_t{begin + k} * n + begin + threadIdx.x];
  __syncthreads();
  const uint32_t row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= n_rows) return;
  auto* at = reinterpret_cast<float4*>(rows + uint64_t{row} * n + begin);
  float v[kBlock];
#pragma unroll
  for (unsigned k = 0; k < kBlock / 4; ++k) {
    const float4 x = at[k];
    v[4 * k] = x.x, v[4 * k + 1] = x.y, v[4 * k + 2] = x.z, v[4 * k + 3] = x.w;
  }
  if (kForward) {
#pragma unroll
    for (unsigned k = 0; k < kBlock; ++k)
#pragma unroll
      for (unsigned i = 0; i < k; ++i) v[k] -= s[k][i] * v[i];
  } else {
#pragma unroll
    for (unsigned k = kBlock; k-- > 0;)
#pragma unroll
      for (unsigned i = 0; i < k; ++i) v[i] -= s[k][i] * v[k];
  }
#pragma unroll
  for (unsigned k = 0; k < kBlock / 4; ++k) at[k] = make_float4(v[4 * k], v[4 * k + 1], v[4 * k + 2], v[4 * k + 3]);
}

__global__ void divide_columns(const float* a, uint32_t n, float* rows) {
  const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c < n) rows[uint64_t{blockIdx.y} * n + c] /= a[uint64_t{c} * n + c];
}

__global__ void arrange_kernel(const float* moments, float scale, uint32_t cols, const uint32_t* order, uint32_t n,
                               uint32_t width, float damping, float mean, float* a) {
  const uint32_t k = blockIdx.y, i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= width) return;
  const auto column = [&](uint32_t at) { return at >= n ? cols : order ? order[at] : at; };
  const uint32_t col = column(k), other = column(i);
  float x = 0;
  if (i == k) {
    x = col >= cols ? mean : (moments ? scale * moments[uint64_t{col} * cols + col] : mean) + damping;
  } else if (i < k && moments && col < cols && other < cols) {
    x = scale * moments[uint64_t{max(col, other)} * cols + min(col, other)];
  }
  a[uint64_t{k} * width + i] = x;
}

__global__ void add_kernel(const float* from, uint64_t from_stride, float factor, uint32_t cols, float* to,
                           uint64_t to_stride) {
  const uint64_t row = blockIdx.y;
  const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c < cols) to[row * to_stride + c] += factor * from[row * from_stride + c];
}

}  // namespace

cudaError_t eliminate(float* a, uint32_t n, float floor, float* work, cudaStream_t stream) {
  float* plain = work;
  float* scaled = work + uint64_t{kBlock} * n;
  float* block = scaled + uint64_t{kBlock} * n;
  for (uint32_t end = n; end > 0; end -= kBlock) {
    const uint32_t begin = end - kBlock;
    eliminate_block<<<1, kBlock, 0, stream>>>(a, n, begin, floor, block);
    if (begin == 0) break;
    eliminate_rows<<<(begin + 127) / 128, 128, 0, stream>>>(a, n, begin, block, plain, scaled);
    Gemm g{scaled, plain, a, begin, begin, kBlock, kBlock, kBlock, n, -1.0f, true, true};
    const cudaError_t status = multiply_dense(g, Precision::kFloat, stream);
    if (status != cudaSuccess) return status;
  }
  return cudaGetLastError();
}

cudaError_t solve(const float* a, uint32_t n, float* rows, uint32_t n_rows, float* work, cudaStream_t stream) {
  const uint32_t blocks = (n_rows + kBlock - 1) / kBlock;
  for (uint32_t begin = n; begin > 0;) {
    begin -= kBlock;
    solve_block<false><<<blocks, kBlock, 0, stream>>>(a, n, begin, rows, n_rows);
    if (begin == 0) break;
    cudaError_t status = transpose(a + uint64_t{begin} * n, n, kBlock, begin, nullptr, 0, work, kBlock, stream);
    if (status != cudaSuccess) return status;
    Gemm g{rows + begin, work, rows, n_rows, begin, kBlock, n, kBlock, n, -1.0f, true};
    status = multiply_dense(g, Precision::kFloat, stream);
    if (status != cudaSuccess) return status;
  }
  for (uint32_t row = 0; row < n_rows; row += kMostRows)
    divide_columns<<<dim3((n + kThreads - 1) / kThreads, n_rows - row < kMostRows ? n_rows - row : kMostRows), kThreads,
                     0, stream>>>(a, n, rows + uint64_t{row} * n);
  for (uint32_t begin = 0; begin < n; begin += kBlock) {
    solve_block<true><<<blocks, kBlock, 0, stream>>>(a, n, begin, rows, n_rows);
    const uint32_t end = begin + kBlock;
    if (end == n) break;
    Gemm g{rows + begin, a + uint64_t{end} * n + begin, rows + end, n_rows, n - end, kBlock, n, n, n, -1.0f, true};
    const cudaError_t status = multiply_dense(g, Precision::kFloat, stream);
    if (status != cudaSuccess) return status;
  }
  return cudaGetLastError();
}

cudaError_t arrange_moments(const float* moments, float scale, uint32_t cols, const uint32_t* order, uint32_t n,
                            uint32_t width, float damping, float mean, float* a, cudaStream_t stream) {
  arrange_kernel<<<dim3((width + kThreads - 1) / kThreads, width), kThreads, 0, stream>>>(moments, scale, cols, order,
                                                                                          n, width, damping, mean, a);
  return cudaGetLastError();
}

cudaError_t add_scaled(const float* from, uint64_t from_stride, float factor, uint32_t rows, uint32_t cols, float* to,
                       uint64_t to_stride, cudaStream_t stream) {
  for (uint32_t row = 0; row < rows; row += kMostRows)
    add_kernel<<<dim3((cols + kThreads - 1) / kThreads, rows - row < kMostRows ? rows - row : kMostRows), kThreads, 0,
                 stream>>>(from + row * from_stride, from_stride, factor, cols, to + row * to_stride, to_stride);
  return cudaGetLastError();
}

}  // namespace upg::cuda
