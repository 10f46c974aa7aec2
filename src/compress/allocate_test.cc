// Allocation: the budget is met, what is left would not buy another matrix more bits, and too little is refused.
#include "compress/allocate.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "codec/trellis.h"

namespace upg {
namespace {

const std::vector<MatrixShape> kMatrices = {{"a", 1024, 256}, {"b", 96, 320}, {"c", 4096, 300},
                                            {"d", 1, 1},      {"e", 96, 320}, {"f", 256, 1024}};

uint64_t bytes_of(const Codec& codec, const MatrixShape& m) { return codec.stored_bytes(m.rows, m.cols, 0); }

uint64_t all_in(const Codec& codec) {
  uint64_t sum = 0;
  for (const MatrixShape& m : kMatrices) sum += bytes_of(codec, m);
  return sum;
}

uint64_t total(const std::vector<const Codec*>& chosen) {
  uint64_t sum = 0;
  for (size_t i = 0; i < chosen.size(); ++i) sum += bytes_of(*chosen[i], kMatrices[i]);
  return sum;
}

TEST(Allocate, MeetsEveryBudgetAndWastesLessThanTheNextMatrixCosts) {
  const uint64_t fewest = all_in(kTrellis2Codec), most = all_in(kTrellis4Codec);
  uint64_t before = 0;
  for (uint64_t budget = fewest; budget < most + 1000; budget += 997) {
    uint64_t least = 0;
    const auto chosen = allocate(kMatrices, budget, &least);
    ASSERT_TRUE(chosen) << budget;
    EXPECT_EQ(least, fewest);
    ASSERT_EQ(chosen->size(), kMatrices.size());
    const uint64_t used = total(*chosen);
    EXPECT_LE(used, budget);
    EXPECT_GE(used, before) << "more bytes never give fewer bits";
    before = used;
    // Matrices with the fewest bits, of which those of the cheapest were raised first.
    const std::vector<const Codec*> ladder = {&kTrellis2Codec, &kTrellis3Codec, &kTrellis4Codec};
    size_t level = 0;
    while (std::find(chosen->begin(), chosen->end(), ladder[level]) == chosen->end()) ++level;
    if (level + 1 == ladder.size()) continue;
    uint64_t cheapest = UINT64_MAX;
    for (size_t i = 0; i < chosen->size(); ++i) {
      if ((*chosen)[i] == ladder[level])
        cheapest =
            std::min(cheapest, bytes_of(*ladder[level + 1], kMatrices[i]) - bytes_of(*ladder[level], kMatrices[i]));
      else
        EXPECT_EQ((*chosen)[i], ladder[level + 1]) << "no matrix is two steps ahead";
    }
    EXPECT_LT(budget - used, cheapest) << budget;
  }
}

TEST(Allocate, ExactSumsAreReached) {
  uint64_t fewest = 0;
  for (const Codec* codec : {&kTrellis2Codec, &kTrellis3Codec, &kTrellis4Codec})
    EXPECT_EQ(*allocate(kMatrices, all_in(*codec), &fewest), std::vector<const Codec*>(kMatrices.size(), codec));
  EXPECT_EQ(*allocate(kMatrices, UINT64_MAX, &fewest), std::vector<const Codec*>(kMatrices.size(), &kTrellis4Codec));
}

TEST(Allocate, ABudgetBelowTheFewestBytesGivesNothingAndSaysHowFew) {
  uint64_t fewest = 0;
  EXPECT_FALSE(allocate(kMatrices, all_in(kTrellis2Codec) - 1, &fewest));
  EXPECT_EQ(fewest, all_in(kTrellis2Codec));
  EXPECT_FALSE(allocate(kMatrices, 0, &fewest));
}

TEST(Allocate, NoMatricesNeedNothing) {
  uint64_t fewest = 1;
  EXPECT_EQ(allocate({}, 0, &fewest)->size(), 0u);
  EXPECT_EQ(fewest, 0u);
}

}  // namespace
}  // namespace upg
