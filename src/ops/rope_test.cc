// Rotations against their definition in double.
#include "ops/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace upg {
namespace {

std::vector<float> random_floats(size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& x : values) x = normal(generator);
  return values;
}

void turn(const Rope& rope, float* head, uint64_t position) {
  std::vector<float> angles(rope.rotary_dim());
  rope.angles(position, angles.data());
  rope.turn(head, angles.data());
}

TEST(Rope, TurnsPairsHalfAHeadApart) {
  const Rope rope(plain_frequencies(6, 100));
  std::vector<float> head = random_floats(8, 6);
  const std::vector<float> before = head;
  turn(rope, head.data(), 5);
  for (uint64_t i = 0; i < 3; ++i) {
    const double angle = 5 * std::pow(100.0, -2.0 * static_cast<double>(i) / 6);
    EXPECT_NEAR(head[i], before[i] * std::cos(angle) - before[i + 3] * std::sin(angle), 2e-6);
    EXPECT_NEAR(head[i + 3], before[i + 3] * std::cos(angle) + before[i] * std::sin(angle), 2e-6);
  }
  EXPECT_EQ(head[6], before[6]) << "past the rotary part nothing turns";
  EXPECT_EQ(head[7], before[7]);
}

TEST(Rope, PositionZeroAndNoRotaryPartChangeNothing) {
  std::vector<float> head = random_floats(4, 8);
  const std::vector<float> before = head;
  turn(Rope(plain_frequencies(4, 10000)), head.data(), 0);
  EXPECT_EQ(head, before);
  turn(Rope(plain_frequencies(0, 10000)), head.data(), 9);
  EXPECT_EQ(head, before);
}

TEST(Rope, InterleavedPairsAreNeighbours) {
  const Rope rope(plain_frequencies(4, 100), 1, true);
  std::vector<float> head = {1, 2, 3, 4, 5};
  turn(rope, head.data(), 3);
  for (uint64_t i = 0; i < 2; ++i) {
    const double angle = 3 * std::pow(100.0, -static_cast<double>(i) / 2), a = 2.0 * static_cast<double>(i) + 1;
    EXPECT_NEAR(head[2 * i], a * std::cos(angle) - (a + 1) * std::sin(angle), 2e-6);
    EXPECT_NEAR(head[2 * i + 1], (a + 1) * std::cos(angle) + a * std::sin(angle), 2e-6);
  }
  EXPECT_EQ(head[4], 5);
}

TEST(Rope, AMagnitudeScalesWhatTurns) {
  const std::vector<float> frequencies = plain_frequencies(4, 100);
  std::vector<float> a = {1, 2, 3, 4, 5}, b = a;
  turn(Rope(frequencies), a.data(), 7);
  turn(Rope(frequencies, 2), b.data(), 7);
  for (uint64_t i = 0; i < 4; ++i) EXPECT_NEAR(b[i], 2 * a[i], 1e-5);
  EXPECT_EQ(b[4], 5);
}

}  // namespace
}  // namespace upg
