// Norms, gates and rotations against their definitions in double.
#include "ops/elementwise.h"

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

TEST(RmsNorm, DividesByTheRootMeanSquare) {
  for (uint64_t width : {1u, 7u, 16u, 36u, 129u})
    for (uint64_t n : {1u, 3u, 20u}) {
      const std::vector<float> x = random_floats(n * width, 1), weight = random_floats(width, 2);
      std::vector<float> y(n * width);
      OpContext context(2);
      rms_norm(context, x.data(), weight, 1e-5f, n, y.data());
      for (uint64_t t = 0; t < n; ++t) {
        double power = 0;
        for (uint64_t i = 0; i < width; ++i) power += static_cast<double>(x[t * width + i]) * x[t * width + i];
        const double scale = 1 / std::sqrt(power / static_cast<double>(width) + 1e-5);
        for (uint64_t i = 0; i < width; ++i) {
          const double expected = x[t * width + i] * scale * weight[i];
          ASSERT_NEAR(y[t * width + i], expected, std::abs(expected) * 2e-6) << width << " " << t << " " << i;
        }
      }
      std::vector<float> in_place = x;
      rms_norm(context, in_place.data(), weight, 1e-5f, n, in_place.data());
      EXPECT_EQ(in_place, y);
    }
}

TEST(RmsNorm, OfZerosIsZero) {
  std::vector<float> x(24, 0.0f);
  OpContext context(1);
  rms_norm(context, x.data(), std::vector<float>(24, 1.0f), 1e-6f, 1, x.data());
  for (float y : x) EXPECT_EQ(y, 0.0f);
}

TEST(Glu, GatesTheSecondHalfByTheSiluOfTheFirst) {
  for (uint64_t width : {1u, 5u, 33u, 64u}) {
    std::vector<float> gate_up = random_floats(3 * 2 * width, 4);
    for (float& x : gate_up) x *= 5;
    gate_up[0] = 90;  // exp(-x) underflows
    std::vector<float> y(3 * width);
    OpContext context(2);
    glu(context, "silu", gate_up.data(), 3, width, y.data());
    for (uint64_t t = 0; t < 3; ++t)
      for (uint64_t i = 0; i < width; ++i) {
        const double gate = gate_up[t * 2 * width + i], up = gate_up[(t * 2 + 1) * width + i];
        const double expected = gate / (1 + std::exp(-gate)) * up;
        ASSERT_NEAR(y[t * width + i], expected, std::abs(expected) * 4e-6 + 1e-30) << width << " " << i;
      }
  }
}

TEST(Glu, GatesFarFromZeroStayFinite) {
  const std::vector<float> gate_up = {-1000, 1000, -90, 88.5f, 2, 2, 2, 2};
  std::vector<float> y(4);
  OpContext context(1);
  glu(context, "silu", gate_up.data(), 1, 4, y.data());
  EXPECT_NEAR(y[0], 0, 1e-30);
  EXPECT_FLOAT_EQ(y[1], 2000);
  EXPECT_NEAR(y[2], 0, 1e-30);
  EXPECT_FLOAT_EQ(y[3], 177);
}

TEST(AddTo, AddsElementByElement) {
  std::vector<float> x = {1, 2, 3};
  OpContext context(2);
  add_to(context, x.data(), std::vector<float>{10, 20, 30}.data(), 2);
  EXPECT_EQ(x, (std::vector<float>{11, 22, 3}));
}

}  // namespace
}  // namespace upg
