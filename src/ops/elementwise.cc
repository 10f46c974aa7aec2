#include "ops/elementwise.h"

#include <cmath>

namespace upg {

void rms_norm(OpContext& context, const float* x, std::span<const float> weight, float epsilon, uint64_t n_tokens,
              float* y) {
  const auto run = kernels::select(kernels::rms_norm_kernels(), "f32").run;
  const uint64_t width = weight.size();
  context.pool.split(n_tokens, 8, [&](uint64_t begin, uint64_t end, unsigned) {
    run({x + begin * width, weight.data(), y + begin * width, end - begin, width, epsilon});
  });
}

void swiglu(OpContext& context, const float* gate_up, uint64_t n_tokens, uint64_t width, float* y) {
  const auto run = kernels::select(kernels::swiglu_kernels(), "f32").run;
  context.pool.split(n_tokens, 8, [&](uint64_t begin, uint64_t end, unsigned) {
    run({gate_up + begin * 2 * width, y + begin * width, end - begin, width});
  });
}

void add_to(OpContext& context, float* x, const float* y, uint64_t n) {
  constexpr uint64_t kGrain = 16384;  // fewer are over before another thread has begun
  context.pool.split(n, kGrain, [&](uint64_t begin, uint64_t end, unsigned) {
    for (uint64_t i = begin; i < end; ++i) x[i] += y[i];
  });
}

Rope::Rope(uint64_t rotary_dim, double base) : inverse_frequency_(rotary_dim / 2) {
  // In float, as transformers does: at position 10,000 the rounding of the angle is visible in the logits.
  for (uint64_t i = 0; i < inverse_frequency_.size(); ++i)
    inverse_frequency_[i] =
        1.0f / std::pow(static_cast<float>(base), static_cast<float>(2 * i) / static_cast<float>(rotary_dim));
}

void Rope::angles(uint64_t position, float* out) const {
  const uint64_t half = inverse_frequency_.size();
  for (uint64_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * inverse_frequency_[i];
    out[i] = std::cos(angle);
    out[half + i] = std::sin(angle);
  }
}

void Rope::turn(float* head, const float* angles) const {
  const uint64_t half = inverse_frequency_.size();
  for (uint64_t i = 0; i < half; ++i) {
    const float c = angles[i], s = angles[half + i];
    const float a = head[i], b = head[half + i];
    head[i] = a * c - b * s;
    head[half + i] = b * c + a * s;
  }
}

}  // namespace upg
