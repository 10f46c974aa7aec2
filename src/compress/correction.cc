#include "compress/correction.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "base/checked.h"
#include "codec/feedback.h"

namespace upg {
namespace {

constexpr uint64_t kLanes = 16;

// Measured on the reference checkpoint (docs/quality.md). The whole way costs more by fitting the calibration text than
// it gains.
constexpr float kInputStrength = 0.5f;
constexpr float kStreamStrength = 0.3f;
constexpr double kDamping = 0.03;

}  // namespace

std::vector<float> corrected_weights(uint64_t rows, uint64_t cols, const RowSource& source,
                                     const InputStatistics& statistics, const ForEach& for_each) {
  std::vector<uint32_t> order(cols);
  std::iota(order.begin(), order.end(), 0u);
  const Feedback factored = factor_moments(statistics.moments, order, kDamping, for_each);
  std::vector<float> corrected(rows * cols);
  for_each(ceil_div(rows, kLanes), [&](uint64_t panel) {
    const uint64_t begin = panel * kLanes;
    const uint64_t lanes = std::min(kLanes, rows - begin);
    std::vector<float> moved(cols * kLanes);  // [cols][16]
    for (uint64_t j = 0; j < lanes; ++j) {
      const std::span<float> row(corrected.data() + (begin + j) * cols, cols);
      source(begin + j, row);
      if (statistics.stream_drift.empty()) continue;
      for (uint64_t c = 0; c < cols; ++c)
        moved[c * kLanes + j] = kStreamStrength * statistics.stream_drift[(begin + j) * cols + c];
    }
    std::vector<float> weights(cols * kLanes);
    for (uint64_t j = 0; j < lanes; ++j)
      for (uint64_t c = 0; c < cols; ++c) weights[c * kLanes + j] = kInputStrength * corrected[(begin + j) * cols + c];
    add_row_products(statistics.drift.data(), cols, weights.data(), moved.data());
    solve_rows(factored, moved.data());
    for (uint64_t j = 0; j < lanes; ++j)
      for (uint64_t c = 0; c < cols; ++c) corrected[(begin + j) * cols + c] += moved[c * kLanes + j];
  });
  return corrected;
}

}  // namespace upg
