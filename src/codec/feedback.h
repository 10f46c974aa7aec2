// Error feedback for encoders that round weights one after another: what one column's rounding error means for the
// columns after it, from the second moments of the matrix's input (Frantar et al. 2022, GPTQ; Chee et al. 2023, LDLQ).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "codec/codec.h"

namespace upg {

/// H = M D M^T, M unit upper triangular, rows and columns in the order of processing. For errors e the loss e H e^T is
/// then sum_k D[k] (e[k] + sum_{i<k} e[i] M[i][k])^2: rounding w[k] + sum_{i<k} e[i] M[i][k] instead of w[k] makes each
/// term as small as its own rounding error.
struct Feedback {
  uint64_t n = 0;
  std::vector<float> factor;    // [n, n], row k: M[i][k] for i < k; the rest means nothing
  std::vector<float> variance;  // [n], D
};

/// order[k]: the column processed k-th; values from moments.cols on stand for padding, which feeds nothing and weighs
/// nothing. `damping` times the mean of the diagonal is added to it.
/// Moments that are all zero count as those of white noise.
Feedback factor_moments(const Moments& moments, std::span<const uint32_t> order, double damping,
                        const ForEach& for_each);

/// rows [n, 16] := rows H^-1, H as factored: row-vector solutions, lane by lane.
void solve_rows(const Feedback& feedback, float* rows);

/// out[c][lane] += sum_i rows[i][lane] matrix[i][c]: matrix [n, n], rows and out [n, 16].
void add_row_products(const float* matrix, uint64_t n, const float* rows, float* out);

/// targets[k][lane] += sum_i factor[k][begin + i] * errors[i][lane] for `count` columns from `begin` and every k after
/// them. targets [n, 16], errors [count, 16].
void feed_errors(const Feedback& feedback, uint64_t begin, uint64_t count, const float* errors, float* targets);

}  // namespace upg
