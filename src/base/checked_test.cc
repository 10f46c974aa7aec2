// Arithmetic that reports overflow.
#include "base/checked.h"

#include <gtest/gtest.h>

#include <vector>

namespace upg {
namespace {

constexpr uint64_t kMax = UINT64_MAX;

TEST(Checked, SumsAndProductsThatFitAreExact) {
  EXPECT_EQ(checked_add(kMax - 1, 1), kMax);
  EXPECT_EQ(checked_mul(kMax / 3, 3), kMax);
  EXPECT_EQ(checked_mul(uint64_t{1} << 32, (uint64_t{1} << 32) - 1), kMax - 0xffffffffu);
  EXPECT_EQ(checked_mul(0, kMax), 0u);
}

TEST(Checked, OverflowIsReported) {
  EXPECT_EQ(checked_add(kMax, 1), std::nullopt);
  EXPECT_EQ(checked_mul(uint64_t{1} << 32, uint64_t{1} << 32), std::nullopt);
  EXPECT_EQ(checked_mul(kMax, 2), std::nullopt);
}

TEST(Checked, ProductOfDimensionsIsOneForAScalarAndReportsOverflow) {
  EXPECT_EQ(checked_product({}), 1u);
  EXPECT_EQ(checked_product(std::vector<uint64_t>{3, 4, 5}), 60u);
  EXPECT_EQ(checked_product(std::vector<uint64_t>{7, 0}), 0u);
  EXPECT_EQ(checked_product(std::vector<uint64_t>{uint64_t{1} << 40, uint64_t{1} << 40}), std::nullopt);
}

TEST(Checked, CeilingDivisionDoesNotOverflowNearTheMaximum) {
  EXPECT_EQ(ceil_div(0, 64), 0u);
  EXPECT_EQ(ceil_div(64, 64), 1u);
  EXPECT_EQ(ceil_div(65, 64), 2u);
  EXPECT_EQ(ceil_div(kMax, 2), kMax / 2 + 1);
}

}  // namespace
}  // namespace upg
