#include "ops/rope.h"

#include <cmath>

namespace upg {

std::vector<float> plain_frequencies(uint64_t rotary_dim, double base) {
  // In float, as transformers does: at position 10,000 the rounding of the angle is visible in the logits.
  std::vector<float> frequency(rotary_dim / 2);
  for (uint64_t i = 0; i < frequency.size(); ++i)
    frequency[i] =
        1.0f / std::pow(static_cast<float>(base), static_cast<float>(2 * i) / static_cast<float>(rotary_dim));
  return frequency;
}

void Rope::angles(uint64_t position, float* out) const {
  const uint64_t half = frequency_.size();
  for (uint64_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * frequency_[i];
    out[i] = std::cos(angle) * magnitude_;
    out[half + i] = std::sin(angle) * magnitude_;
  }
}

void Rope::turn(float* head, const float* angles) const {
  const uint64_t half = frequency_.size();
  const uint64_t step = interleaved_ ? 2 : 1, apart = interleaved_ ? 1 : half;
  for (uint64_t i = 0; i < half; ++i) {
    const float c = angles[i], s = angles[half + i];
    float &first = head[step * i], &second = head[step * i + apart];
    const float a = first, b = second;
    first = a * c - b * s;
    second = b * c + a * s;
  }
}

}  // namespace upg
