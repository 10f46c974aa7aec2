#include "codec/feedback.h"

#include <algorithm>
#include <cmath>

#include "base/clones.h"

namespace upg {
namespace {

constexpr uint64_t kRows = 64;    // eliminated together
constexpr uint64_t kWidth = 512;  // floats of a row updated together: kRows of them are 128 KiB, within L2
constexpr unsigned kLanes = 16;

// row[j] -= sum_k scale[k] * rows[k][j] for j < width; rows are `stride` apart.
UPG_CLONES
void subtract_rows(float* row, const float* rows, uint64_t stride, const float* scale, uint64_t count, uint64_t width) {
  for (uint64_t begin = 0; begin < width; begin += 64) {
    const uint64_t n = std::min<uint64_t>(64, width - begin);
    if (n == 64) {
      float sum[64];
      for (unsigned j = 0; j < 64; ++j) sum[j] = row[begin + j];
      for (uint64_t k = 0; k < count; ++k) {
        const float* other = rows + k * stride + begin;
        for (unsigned j = 0; j < 64; ++j) sum[j] -= scale[k] * other[j];
      }
      for (unsigned j = 0; j < 64; ++j) row[begin + j] = sum[j];
    } else {
      for (uint64_t k = 0; k < count; ++k)
        for (uint64_t j = begin; j < begin + n; ++j) row[j] -= scale[k] * rows[k * stride + j];
    }
  }
}

// Elimination from the last column to the first, in place: row k of `a` becomes M[.][k], a[k][k] becomes D[k].
void eliminate(std::vector<float>& a, uint64_t n, const ForEach& for_each, float floor) {
  for (uint64_t end = n; end > 0;) {
    const uint64_t begin = end > kRows ? end - kRows : 0;
    // The rows of this block among themselves.
    for (uint64_t k = end; k-- > begin;) {
      float* row = a.data() + k * n;
      for (uint64_t later = end - 1; later > k; --later) {
        const float* other = a.data() + later * n;
        const float scale = other[k] * other[later];
        subtract_rows(row, other, n, &scale, 1, k + 1);
      }
      row[k] = std::max(row[k], floor);
      const float inverse = 1.0f / row[k];
      for (uint64_t i = 0; i < k; ++i) row[i] *= inverse;
    }
    // What they leave of the rows before.
    for_each(begin, [&](uint64_t i) {
      float scale[kRows];
      for (uint64_t k = begin; k < end; ++k) scale[k - begin] = a[k * n + i] * a[k * n + k];
      for (uint64_t from = 0; from <= i; from += kWidth)
        subtract_rows(a.data() + i * n + from, a.data() + begin * n + from, n, scale, end - begin,
                      std::min(kWidth, i + 1 - from));
    });
    end = begin;
  }
}

}  // namespace

Feedback factor_moments(const Moments& moments, std::span<const uint32_t> order, double damping,
                        const ForEach& for_each) {
  const uint64_t n = order.size();
  const uint64_t cols = moments.cols;
  Feedback feedback;
  feedback.n = n;
  double trace = 0;
  for (uint64_t c = 0; c < cols; ++c) trace += moments.values[c * cols + c];
  const bool white = !(trace > 0);
  const double mean = white ? 1.0 : trace / static_cast<double>(cols);
  feedback.factor.assign(n * n, 0.0f);
  for_each(n, [&](uint64_t k) {
    float* row = feedback.factor.data() + k * n;
    const uint64_t col = order[k];
    row[k] = static_cast<float>(mean);  // padding: keeps the elimination away from zero
    if (col >= cols) return;
    for (uint64_t i = 0; i < k && !white; ++i) {
      const uint64_t other = order[i];
      if (other < cols) row[i] = moments.values[std::max(col, other) * cols + std::min(col, other)];
    }
    row[k] = static_cast<float>((white ? mean : moments.values[col * cols + col]) + damping * mean);
  });
  // Rounding may push a variance below zero where columns are copies of each other; damping bounds the true one.
  eliminate(feedback.factor, n, for_each, static_cast<float>(0.5 * damping * mean));
  feedback.variance.resize(n);
  for (uint64_t k = 0; k < n; ++k) feedback.variance[k] = order[k] < cols ? feedback.factor[k * n + k] : 0.0f;
  return feedback;
}

UPG_CLONES
void feed_errors(const Feedback& feedback, uint64_t begin, uint64_t count, const float* errors, float* targets) {
  for (uint64_t k = begin + count; k < feedback.n; ++k) {
    const float* factor = feedback.factor.data() + k * feedback.n + begin;
    float* target = targets + k * kLanes;
    float sum[kLanes];
    for (unsigned j = 0; j < kLanes; ++j) sum[j] = target[j];
    for (uint64_t i = 0; i < count; ++i)
      for (unsigned j = 0; j < kLanes; ++j) sum[j] += factor[i] * errors[i * kLanes + j];
    for (unsigned j = 0; j < kLanes; ++j) target[j] = sum[j];
  }
}

// y M D M^T = r: first v M^T = r from the last column to the first, then y M = v / D from the first to the last.
UPG_CLONES
void solve_rows(const Feedback& feedback, float* rows) {
  const uint64_t n = feedback.n;
  for (uint64_t k = n; k-- > 0;) {
    const float* factor = feedback.factor.data() + k * n;
    float v[kLanes];
    for (unsigned j = 0; j < kLanes; ++j) v[j] = rows[k * kLanes + j];
    for (uint64_t i = 0; i < k; ++i)
      for (unsigned j = 0; j < kLanes; ++j) rows[i * kLanes + j] -= factor[i] * v[j];
  }
  for (uint64_t k = 0; k < n; ++k) {
    const float* factor = feedback.factor.data() + k * n;
    float y[kLanes];
    for (unsigned j = 0; j < kLanes; ++j) y[j] = rows[k * kLanes + j] / factor[k];
    for (uint64_t i = 0; i < k; ++i)
      for (unsigned j = 0; j < kLanes; ++j) y[j] -= factor[i] * rows[i * kLanes + j];
    for (unsigned j = 0; j < kLanes; ++j) rows[k * kLanes + j] = y[j];
  }
}

UPG_CLONES
void add_row_products(const float* matrix, uint64_t n, const float* rows, float* out) {
  for (uint64_t i = 0; i < n; ++i) {
    const float* row = matrix + i * n;
    float w[kLanes];
    for (unsigned j = 0; j < kLanes; ++j) w[j] = rows[i * kLanes + j];
    for (uint64_t c = 0; c < n; ++c)
      for (unsigned j = 0; j < kLanes; ++j) out[c * kLanes + j] += w[j] * row[c];
  }
}

}  // namespace upg
