// The search for a tile's codes against an independent dynamic program in double, one lane at a time.
#include "codec/trellis_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>

namespace upg {
namespace {

TrellisTables random_tables(unsigned bits, std::mt19937& random) {
  TrellisTables tables;
  tables.bits = bits;
  const unsigned levels = 1u << bits;
  for (unsigned h = 0; h < levels; ++h)
    tables.level[0][h] = static_cast<float>(static_cast<int>(random() % 255) - 127) / 127;
  std::sort(tables.level[0], tables.level[0] + levels);
  for (unsigned h = 0; h < levels; ++h) tables.level[1][h] = -tables.level[0][levels - 1 - h];
  for (unsigned n = 0; n < 16; ++n) tables.step[n] = static_cast<float>(std::pow(6.3, (n - 15.0) / 15));
  return tables;
}

TrellisTile random_tile(std::mt19937& random) {
  TrellisTile tile{};
  std::normal_distribution<float> normal;
  for (unsigned i = 0; i < kBlock; ++i) {
    const float weight = random() % 4 == 0 ? 0.0f : 0.5f + static_cast<float>(random() % 4);
    std::fill_n(tile.weight[i], kLanes, weight);
    for (unsigned j = 0; j < kLanes; ++j) tile.original[i][j] = tile.target[i][j] = normal(random);
  }
  for (unsigned j = 0; j < kLanes; ++j) tile.scale[j] = 1.5f + static_cast<float>(random() % 3);
  return tile;
}

double level_of(const TrellisTables& tables, unsigned state, unsigned code) {
  return double{tables.level[trellis_row(state)][code ^ trellis_flip(state)]};
}

// The state before the first weight of a lane's chain.
unsigned first_state(const TrellisTile& tile, unsigned lane) {
  unsigned state = 0;
  for (unsigned i = 0; i < kBlock; ++i) state = trellis_next_state(state, tile.code[i][lane]);
  return state;
}

// Least weighted error of a lane over all tail-biting paths at one scale: every state as a start, then as the end.
double least_error(const TrellisTables& tables, const TrellisTile& tile, unsigned lane, double scale) {
  double least = std::numeric_limits<double>::infinity();
  for (unsigned start = 0; start < kTrellisStates; ++start) {
    std::array<double, kTrellisStates> cost;
    cost.fill(std::numeric_limits<double>::infinity());
    cost[start] = 0;
    for (unsigned i = 0; i < kBlock; ++i) {
      std::array<double, kTrellisStates> next;
      next.fill(std::numeric_limits<double>::infinity());
      for (unsigned state = 0; state < kTrellisStates; ++state) {
        for (unsigned h = 0; h < (1u << tables.bits); ++h) {
          const double d = double{tile.target[i][lane]} - scale * level_of(tables, state, h);
          double& least_here = next[trellis_next_state(state, h)];
          least_here = std::min(least_here, cost[state] + double{tile.weight[i][lane]} * d * d);
        }
      }
      cost = next;
    }
    least = std::min(least, cost[start]);
  }
  return least;
}

TEST(TrellisSearch, FindsTheBestTailBitingPathAtTheStepThatItChose) {
  for (unsigned bits : {2u, 3u, 4u}) {
    std::mt19937 random(bits);
    for (int round = 0; round < 20; ++round) {
      const TrellisTables tables = random_tables(bits, random);
      TrellisTile tile = random_tile(random);
      search_trellis_tile(tables, tile);
      for (unsigned j = 0; j < kLanes; ++j) {
        const double scale = double{tile.scale[j]} * double{tables.step[tile.step[j]]};
        const double least = least_error(tables, tile, j, scale);
        ASSERT_NEAR(tile.error[j], least, 1e-4 * least + 1e-6) << bits << " bits, round " << round << ", lane " << j;
        // The codes say what the reported error says.
        double error = 0;
        unsigned state = first_state(tile, j);
        for (unsigned i = 0; i < kBlock; ++i) {
          const unsigned code = tile.code[i][j];
          ASSERT_LT(code, 1u << bits);
          const double d = double{tile.target[i][j]} - scale * level_of(tables, state, code);
          ASSERT_NEAR(tile.decoded[i][j], scale * level_of(tables, state, code), 1e-5);
          error += double{tile.weight[i][j]} * d * d;
          state = trellis_next_state(state, code);
        }
        ASSERT_NEAR(error, least, 1e-4 * least + 1e-6);
      }
    }
  }
}

TEST(TrellisSearch, TheStepsThatItSkipsWouldGainLittle) {
  // Tables as training leaves them, near the normal distribution's best levels.
  constexpr float kLevels[3][16] = {{-1.0f, -0.35f, 0.25f, 0.8f},
                                    {-0.70f, -0.39f, -0.19f, -0.02f, 0.16f, 0.34f, 0.57f, 1.0f},
                                    {-0.77f, -0.58f, -0.45f, -0.34f, -0.24f, -0.16f, -0.08f, -0.01f, 0.06f, 0.13f, 0.2f,
                                     0.29f, 0.4f, 0.52f, 0.68f, 1.0f}};
  for (unsigned bits : {2u, 3u, 4u}) {
    std::mt19937 random(10 + bits);
    TrellisTables tables = random_tables(bits, random);
    const unsigned levels = 1u << bits;
    for (unsigned h = 0; h < levels; ++h) tables.level[0][h] = kLevels[bits - 2][h];
    for (unsigned h = 0; h < levels; ++h) tables.level[1][h] = -tables.level[0][levels - 1 - h];
    double found = 0, best = 0;
    for (int round = 0; round < 20; ++round) {
      TrellisTile tile = random_tile(random);
      for (unsigned j = 0; j < kLanes; ++j) tile.scale[j] = 4.0f;
      for (auto& weights : tile.weight) std::fill_n(weights, kLanes, 1.0f);
      search_trellis_tile(tables, tile);
      for (unsigned j = 0; j < kLanes; ++j) {
        found += double{tile.error[j]};
        double least = std::numeric_limits<double>::infinity();
        for (float step : tables.step) least = std::min(least, least_error(tables, tile, j, 4.0 * double{step}));
        best += least;
      }
    }
    EXPECT_LT(found, 1.01 * best) << bits << " bits";  // measured: at most 1.003
    EXPECT_GT(found, 0.9999 * best) << bits << " bits";
  }
}

// What feedback promises: the loss that counts errors and what they do to later positions.
double loss_with_feedback(const TrellisTile& tile, const float (*feedback)[kBlock], unsigned lane) {
  double loss = 0;
  double errors[kBlock];
  for (unsigned k = 0; k < kBlock; ++k) {
    double target = double{tile.target[k][lane]};
    for (unsigned i = 0; i < k; ++i) target += double{feedback[k][i]} * errors[i];
    const double stored = tile.weight[k][lane] == 0 ? target : double{tile.decoded[k][lane]};  // made good elsewhere
    errors[k] = double{tile.original[k][lane]} - stored;
    loss += double{tile.weight[k][lane]} * std::pow(target - double{tile.decoded[k][lane]}, 2);
  }
  return loss;
}

TEST(TrellisSearch, FeedbackReportsTheLossItLeavesAndLeavesLessThanASearchWithoutIt) {
  for (unsigned bits : {2u, 3u, 4u}) {
    std::mt19937 random(20 + bits);
    const TrellisTables tables = random_tables(bits, random);
    std::normal_distribution<float> normal(0.0f, 0.3f);
    double with = 0, without = 0;
    for (int round = 0; round < 20; ++round) {
      float feedback[kBlock][kBlock];
      for (auto& row : feedback)
        for (float& x : row) x = normal(random);
      TrellisTile tile = random_tile(random);
      search_trellis_tile(tables, tile);
      for (unsigned j = 0; j < kLanes; ++j) without += loss_with_feedback(tile, feedback, j);
      tile.feedback = feedback;
      search_trellis_tile(tables, tile);
      for (unsigned j = 0; j < kLanes; ++j) {
        const double loss = loss_with_feedback(tile, feedback, j);
        ASSERT_NEAR(tile.error[j], loss, 1e-3 * loss + 1e-5);
        with += loss;
      }
    }
    EXPECT_LT(with, 0.5 * without) << bits << " bits";
  }
}

TEST(TrellisSearch, NoFeedbackIsTheSameAsFeedbackOfZero) {
  std::mt19937 random(4);
  const TrellisTables tables = random_tables(3, random);
  const float feedback[kBlock][kBlock] = {};
  for (int round = 0; round < 5; ++round) {
    TrellisTile plain = random_tile(random);
    TrellisTile fed = plain;
    fed.feedback = feedback;
    search_trellis_tile(tables, plain);
    search_trellis_tile(tables, fed);
    for (unsigned j = 0; j < kLanes; ++j) EXPECT_NEAR(plain.error[j], fed.error[j], 1e-4f * plain.error[j]);
  }
}

TEST(TrellisSearch, ALaneWithoutScaleGetsTheFirstStepAndDoesNotDisturbOthers) {
  std::mt19937 random(3);
  const TrellisTables tables = random_tables(3, random);
  TrellisTile tile = random_tile(random);
  TrellisTile with_zero = tile;
  for (unsigned i = 0; i < kBlock; ++i) with_zero.target[i][5] = 0;
  with_zero.scale[5] = 0;
  search_trellis_tile(tables, tile);
  search_trellis_tile(tables, with_zero);
  for (unsigned i = 0; i < kBlock; ++i) {
    EXPECT_EQ(with_zero.decoded[i][5], 0);
    for (unsigned j = 0; j < kLanes; ++j) EXPECT_TRUE(j == 5 || tile.code[i][j] == with_zero.code[i][j]);
  }
}

}  // namespace
}  // namespace upg
