// Allocation: budgets are kept, more bytes never lose more, small cases are as good as trying everything.
#include "compress/allocate.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace upg {
namespace {

using Choices = std::vector<std::vector<Choice>>;

Choices random_choices(size_t matrices, std::mt19937& random) {
  Choices all;
  for (size_t i = 0; i < matrices; ++i) {
    auto& choices = all.emplace_back();
    const uint64_t size = 10 + random() % 100;
    double loss = 1 + static_cast<double>(random() % 1000);
    for (uint64_t bits = 2; bits <= 8; bits *= 2) {
      choices.push_back({size * bits, loss});
      loss /= 3 + static_cast<double>(random() % 4);
    }
  }
  return all;
}

double loss_of(const Choices& all, const std::vector<size_t>& chosen) {
  double sum = 0;
  for (size_t i = 0; i < all.size(); ++i) sum += all[i][chosen[i]].loss;
  return sum;
}

uint64_t bytes_of(const Choices& all, const std::vector<size_t>& chosen) {
  uint64_t sum = 0;
  for (size_t i = 0; i < all.size(); ++i) sum += all[i][chosen[i]].bytes;
  return sum;
}

double best_of_all(const Choices& all, uint64_t budget) {
  std::vector<size_t> chosen(all.size(), 0);
  double best = std::numeric_limits<double>::infinity();
  for (;;) {
    if (bytes_of(all, chosen) <= budget) best = std::min(best, loss_of(all, chosen));
    size_t i = 0;
    while (i < all.size() && ++chosen[i] == all[i].size()) chosen[i++] = 0;
    if (i == all.size()) return best;
  }
}

TEST(Allocate, KeepsTheBudgetAndComesCloseToTheBestOfAll) {
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    const Choices all = random_choices(1 + random() % 6, random);
    uint64_t fewest = 0, most = 0;
    for (const auto& choices : all) {
      fewest += choices.front().bytes;
      most += choices.back().bytes;
    }
    for (uint64_t budget = fewest; budget <= most; budget += 1 + (most - fewest) / 9) {
      uint64_t told = 0;
      const auto chosen = allocate(all, budget, &told);
      ASSERT_TRUE(chosen);
      EXPECT_EQ(told, fewest);
      EXPECT_LE(bytes_of(all, *chosen), budget);
      EXPECT_LE(loss_of(all, *chosen), 1.25 * best_of_all(all, budget) + 1e-9)
          << "round " << round;  // measured: at most 1.22
    }
  }
}

TEST(Allocate, EverythingFitsWhereTheBudgetIsLarge) {
  std::mt19937 random(2);
  const Choices all = random_choices(20, random);
  uint64_t fewest = 0;
  EXPECT_EQ(*allocate(all, UINT64_MAX, &fewest), std::vector<size_t>(20, 2));
  EXPECT_EQ(*allocate(all, fewest, &fewest), std::vector<size_t>(20, 0));
}

TEST(Allocate, ABudgetBelowTheFewestBytesGivesNothingAndSaysHowFew) {
  std::mt19937 random(3);
  const Choices all = random_choices(5, random);
  uint64_t fewest = 0;
  EXPECT_FALSE(allocate(all, 0, &fewest));
  EXPECT_FALSE(allocate(all, fewest - 1, &fewest));
  EXPECT_TRUE(allocate(all, fewest, &fewest));
}

TEST(Allocate, NoMatricesNeedNothing) {
  uint64_t fewest = 1;
  EXPECT_EQ(allocate({}, 0, &fewest)->size(), 0u);
  EXPECT_EQ(fewest, 0u);
}

TEST(Allocate, AStepThatCostsMoreThanTheRestIsPaidForByAnother) {
  // Going up the hulls spends the budget on the first; the second gains more in all.
  const Choices all = {{{10, 10.0}, {19, 0.9}}, {{10, 10.0}, {25, 0.1}}};
  uint64_t fewest = 0;
  EXPECT_EQ(*allocate(all, 35, &fewest), (std::vector<size_t>{0, 1}));
}

}  // namespace
}  // namespace upg
