// Rotary position embedding (Su et al. 2021): pairs of a head's elements turn with the position.
#pragma once

#include <cstdint>
#include <vector>

namespace upg {

/// Radians a position of each pair of `rotary_dim` (even) elements: base^(-2i / rotary_dim).
std::vector<float> plain_frequencies(uint64_t rotary_dim, double base);

class Rope {
 public:
  Rope() = default;
  /// `frequency`: one a pair; what turns is also multiplied by `magnitude`. Pairs are half of the rotary part apart, as
  /// in GPT-NeoX, or neighbours where `interleaved`, as in GPT-J.
  explicit Rope(std::vector<float> frequency, float magnitude = 1, bool interleaved = false)
      : frequency_(std::move(frequency)), magnitude_(magnitude), interleaved_(interleaved) {}

  uint64_t rotary_dim() const { return 2 * frequency_.size(); }
  bool interleaved() const { return interleaved_; }
  const std::vector<float>& frequency() const { return frequency_; }
  float magnitude() const { return magnitude_; }
  /// Cosines, then sines, of one position's angles, times the magnitude: out [rotary_dim].
  void angles(uint64_t position, float* out) const;
  /// Turns one head [rotary_dim or more] in place by the angles of its position.
  void turn(float* head, const float* angles) const;

 private:
  std::vector<float> frequency_;
  float magnitude_ = 1;
  bool interleaved_ = false;
};

}  // namespace upg
