// The ops between the matrix products, each with its kernel chosen once.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/linear.h"

namespace upg {

/// y[t] = rms_norm(x[t]) * weight: x, y [n_tokens, weight.size()]; y may be x.
void rms_norm(OpContext& context, const float* x, std::span<const float> weight, float epsilon, uint64_t n_tokens,
              float* y);

/// y[t] = silu(gate) * up: gate_up [n_tokens, 2, width], y [n_tokens, width].
void swiglu(OpContext& context, const float* gate_up, uint64_t n_tokens, uint64_t width, float* y);

/// x[i] += y[i], n of them.
void add_to(OpContext& context, float* x, const float* y, uint64_t n);

/// Rotary position embedding (Su et al. 2021), halves rotated as in GPT-NeoX.
class Rope {
 public:
  Rope() = default;
  /// The first `rotary_dim` elements (even) of each head turn, at base^(-2i / rotary_dim).
  Rope(uint64_t rotary_dim, double base);

  uint64_t rotary_dim() const { return 2 * inverse_frequency_.size(); }
  /// Cosines, then sines, of one position's angles: out [rotary_dim].
  void angles(uint64_t position, float* out) const;
  /// Turns one head [rotary_dim or more] in place by the angles of its position.
  void turn(float* head, const float* angles) const;

 private:
  std::vector<float> inverse_frequency_;  // [rotary_dim / 2]
};

}  // namespace upg
