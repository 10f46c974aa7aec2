// Dense matrices in float on the GPU: what compression is made of besides the search for codes.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

namespace upg::cuda {

enum class Precision {
  kTf32,   // operands rounded to 11 bits, sums in float
  kFloat,  // as good as float: operands in two parts
};

/// c[i][j] = sum_k a[i][k] b[j][k], times alpha, plus c[i][j] where `add`: a [m, k], b [n, k], c [m, n], rows lda, ldb
/// and ldc floats apart. k, lda and ldb are multiples of 4, a and b aligned to 16 bytes. With `lower` only c[i][j] with
/// j <= i is wanted. The same operands give the same bits. From compute capability 8.0 on.
struct Gemm {
  const float* a;
  const float* b;
  float* c;
  uint32_t m, n, k;
  uint64_t lda, ldb, ldc;
  float alpha = 1;
  bool add = false, lower = false;
};
cudaError_t multiply_dense(const Gemm& gemm, Precision precision, cudaStream_t stream);

/// to[c][r] = from[r][c] scale[r] (scale: nullptr for 1): from [rows, cols].
cudaError_t transpose(const float* from, uint64_t from_stride, uint32_t rows, uint32_t cols, const float* scale,
                      uint64_t scale_stride, float* to, uint64_t to_stride, cudaStream_t stream);

enum class Half { kBf16, kF16 };
/// to[r][c] = from[r][c]: from [rows, cols] without gaps.
cudaError_t widen(const uint16_t* from, Half type, uint32_t rows, uint32_t cols, float* to, uint64_t to_stride,
                  cudaStream_t stream);

/// H = M D M^T in place, as codec/feedback.h says: a [n, n] holds the lower triangle of H, then in row k M[i][k] for
/// i < k and D[k] at [k][k]. n is a multiple of 64. `work` [3, 64, n].
cudaError_t eliminate(float* a, uint32_t n, float floor, float* work, cudaStream_t stream);

/// rows [n_rows, n] := rows H^-1, H as eliminate() left it. `work` [n, 64].
cudaError_t solve(const float* a, uint32_t n, float* rows, uint32_t n_rows, float* work, cudaStream_t stream);

/// to[r][c] += factor from[r][c]: [rows, cols].
cudaError_t add_scaled(const float* from, uint64_t from_stride, float factor, uint32_t rows, uint32_t cols, float* to,
                       uint64_t to_stride, cudaStream_t stream);

/// a [width, width], of which the lower triangle counts, from `scale` times moments [cols, cols], of which the lower
/// triangle is read: columns in `order` [n] (nullptr: as they are; `cols` and above, and what is left up to `width`:
/// padding), `damping` added to the diagonal, `mean` on it for padding. moments nullptr: white noise.
cudaError_t arrange_moments(const float* moments, float scale, uint32_t cols, const uint32_t* order, uint32_t n,
                            uint32_t width, float damping, float mean, float* a, cudaStream_t stream);

}  // namespace upg::cuda
