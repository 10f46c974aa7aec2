// The middle of some measurements.
#pragma once

#include <algorithm>
#include <vector>

namespace upg {

/// 0 for none; of an even number, the mean of the two in the middle.
inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace upg
