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

void corrected_weights(uint64_t rows, uint64_t cols, const RowSource& source, InputStatistics& statistics,
                       const ForEach& for_each, std::vector<float>& corrected) {
  if (corrected.size() < rows * cols) corrected.resize(rows * cols);
  if (statistics.on_device) {
    for_each(rows, [&](uint64_t row) { source(row, std::span(corrected).subspan(row * cols, cols)); });
    statistics.on_device->correct(rows, kInputStrength, kStreamStrength, kDamping, corrected.data());
    return;
  }
  // First what is to be made up for, so that the drifts' memory is free before the moments are factored.
  const uint64_t panels = ceil_div(rows, kLanes);
  for_each(panels, [&](uint64_t panel) {
    const uint64_t begin = panel * kLanes;
    const uint64_t lanes = std::min(kLanes, rows - begin);
    std::vector<float> weights(cols * kLanes), missing(cols * kLanes), row(cols);  // [cols][16]
    for (uint64_t j = 0; j < lanes; ++j) {
      source(begin + j, row);
      for (uint64_t c = 0; c < cols; ++c) weights[c * kLanes + j] = kInputStrength * row[c];
      if (statistics.stream_drift.empty()) continue;
      for (uint64_t c = 0; c < cols; ++c)
        missing[c * kLanes + j] = kStreamStrength * statistics.stream_drift[(begin + j) * cols + c];
    }
    add_row_products(statistics.drift.data(), cols, weights.data(), missing.data());
    for (uint64_t j = 0; j < lanes; ++j)
      for (uint64_t c = 0; c < cols; ++c) corrected[(begin + j) * cols + c] = missing[c * kLanes + j];
  });
  statistics.drift = {};
  statistics.stream_drift = {};

  std::vector<uint32_t> order(cols);
  std::iota(order.begin(), order.end(), 0u);
  const Feedback factored = factor_moments(statistics.moments, order, kDamping, for_each);
  for_each(panels, [&](uint64_t panel) {
    const uint64_t begin = panel * kLanes;
    const uint64_t lanes = std::min(kLanes, rows - begin);
    std::vector<float> moved(cols * kLanes), row(cols);
    for (uint64_t j = 0; j < lanes; ++j)
      for (uint64_t c = 0; c < cols; ++c) moved[c * kLanes + j] = corrected[(begin + j) * cols + c];
    solve_rows(factored, moved.data());
    for (uint64_t j = 0; j < lanes; ++j) {
      source(begin + j, row);
      for (uint64_t c = 0; c < cols; ++c) corrected[(begin + j) * cols + c] = row[c] + moved[c * kLanes + j];
    }
  });
}

}  // namespace upg
