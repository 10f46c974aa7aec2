// Plans: budgets met, bits where they matter, aims out of reach refused with what is possible.
#include "compress/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codec/int8.h"
#include "codec/trellis.h"

namespace upg {
namespace {

using ::testing::HasSubstr;

class PlanTest : public ::testing::Test {
 protected:
  PlanTest() {
    for (const char* name : {"a", "b", "c", "d"}) tensors_.push_back({name, DType::kBF16, {256, 512}, {}});
    for (const TensorView& t : tensors_) matrices_.push_back(&t);
  }
  uint64_t bytes(const std::map<std::string, MatrixPlan>& plan) const {
    uint64_t sum = 0;
    for (const TensorView& t : tensors_)
      sum += plan.at(t.name).codec->stored_bytes(t.shape[0], t.shape[1], 0) + plan.at(t.name).residual_bytes;
    return sum;
  }
  std::vector<TensorView> tensors_;
  std::vector<const TensorView*> matrices_;
  static constexpr uint64_t kWeights = 4 * 256 * 512;
};

TEST_F(PlanTest, BudgetsAreKeptAndUsedToAThousandth) {
  for (double bits : {2.3, 3.0, 3.2, 3.7, 4.5, 6.0}) {
    const auto budget = static_cast<uint64_t>(kWeights * bits / 8);
    const auto plan = plan_matrices(matrices_, {{"a", 4.0}, {"b", 1.0}, {"c", 0.5}, {"d", 0.1}}, budget, kWeights, 0);
    EXPECT_LE(bytes(plan), budget) << bits;
    EXPECT_GE(bytes(plan), budget - budget / 1000) << bits;
  }
}

TEST_F(PlanTest, WhatIsSensitiveGetsMoreBits) {
  const auto plan =
      plan_matrices(matrices_, {{"a", 9.0}, {"b", 1.0}, {"c", 1.0}, {"d", 0.02}}, kWeights * 33 / 80, kWeights, 0);
  EXPECT_EQ(plan.at("a").codec, &kTrellis4Codec);
  EXPECT_EQ(plan.at("b").codec, &kTrellis3Codec);
  EXPECT_EQ(plan.at("d").codec, &kTrellis2Codec);
  EXPECT_GT(plan.at("a").predicted_loss.value(), plan.at("d").predicted_loss.value());
}

TEST_F(PlanTest, WithRoomForAllNothingIsLost) {
  const auto plan = plan_matrices(matrices_, {}, kWeights * 2, kWeights, 0);
  for (const auto& [name, matrix] : plan) EXPECT_EQ(matrix.codec->id, "bf16");
  const auto less = plan_matrices(matrices_, {}, kWeights * 21 / 20, kWeights, 0);
  for (const auto& [name, matrix] : less) EXPECT_EQ(matrix.codec, &kInt8Codec);
}

TEST_F(PlanTest, AnAimOutOfReachIsRefusedWithTheLargestRatio) {
  try {
    plan_matrices(matrices_, {}, kWeights / 8, kWeights, 1000);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.what(), HasSubstr("--ratio 14."));
  }
}

TEST(Budget, ComesFromOneAim) {
  CompressOptions o;
  EXPECT_EQ(budget_bytes(o, 1000), 400u);  // ten to one
  o.bits = 3.0;
  EXPECT_EQ(budget_bytes(o, 1000), 375u);
  o.bytes = 5;
  EXPECT_THROW(budget_bytes(o, 1000), Error);
  o.bits.reset();
  EXPECT_EQ(budget_bytes(o, 1000), 5u);
}

}  // namespace
}  // namespace upg
