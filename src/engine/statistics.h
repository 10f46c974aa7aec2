// Means with standard errors, as evaluations report them.
#pragma once

#include <cmath>
#include <cstdint>

#include "upg/evaluate.h"

namespace upg {

/// Running mean and variance (Welford 1962).
class Mean {
 public:
  void add(double x) {
    ++n_;
    const double d = x - mean_;
    mean_ += d / static_cast<double>(n_);
    squares_ += d * (x - mean_);
  }
  uint64_t count() const { return n_; }
  double mean() const { return mean_; }
  double standard_error() const {
    return n_ > 1 ? std::sqrt(squares_ / static_cast<double>(n_ - 1) / static_cast<double>(n_)) : 0.0;
  }
  Estimate estimate() const { return {mean_, standard_error()}; }
  /// Of e^mean, by the first-order rule.
  Estimate exp() const { return {std::exp(mean_), std::exp(mean_) * standard_error()}; }

 private:
  uint64_t n_ = 0;
  double mean_ = 0;
  double squares_ = 0;
};

}  // namespace upg
