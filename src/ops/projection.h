// Products of one input with several matrices, their results side by side, and a bias.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/linear.h"

namespace upg {

class Projection {
 public:
  Projection() = default;
  /// At least one matrix, all of the same number of columns; bias [rows()], or empty.
  explicit Projection(std::vector<Linear> parts, std::vector<float> bias = {})
      : parts_(std::move(parts)), bias_(std::move(bias)) {}

  uint64_t rows() const;
  uint64_t cols() const { return parts_[0].cols(); }
  const std::vector<Linear>& parts() const { return parts_; }
  const std::vector<float>& bias() const { return bias_; }

  /// y[t] = W x[t] + bias: x [n_tokens, cols()], y [n_tokens, rows()].
  void apply(OpContext& context, const float* x, uint64_t n_tokens, Activations activations, float* y) const;

 private:
  std::vector<Linear> parts_;
  std::vector<float> bias_;
};

}  // namespace upg
