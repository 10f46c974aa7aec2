// Levels that the GPU's decoders add up from several lookups. Needs no GPU.
#include "cuda/level_sums.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

namespace upg::cuda {
namespace {

using Table = int8_t[2][16];

TrellisMatrix matrix(unsigned bits, const Table& table) {
  TrellisMatrix w{};
  w.bits = bits;
  std::memcpy(w.table, table, sizeof w.table);
  set_sums(&w);
  return w;
}

// What the GPU's byte lookup gives for one selector: an entry, or with the top bit set the sign of one.
int lookup(const uint32_t (&entries)[2], unsigned selector) {
  const auto entry = static_cast<int8_t>(entries[selector / 4 % 2] >> (8 * (selector % 4)));
  return (selector & 8) != 0 ? (entry < 0 ? -1 : 0) : entry;
}

int sum3(const TrellisMatrix& w, unsigned s, unsigned h) {
  const unsigned selector = 8 * s + h;
  return lookup(w.sums[0], selector) + lookup(w.sums[1], ~selector & 15);
}

int sum4(const TrellisMatrix& w, unsigned s, unsigned h) {
  const unsigned inverse = ~h & 15;
  return lookup(w.sums[0], h) + lookup(w.sums[1], inverse) + lookup(w.sums[2], h | 8 * s) +
         lookup(w.sums[3], inverse | 8 * s);
}

// T[1][h] = -T[0][2^k - 1 - h], as files have it, of entries that grow with h.
void draw(unsigned bits, std::mt19937& random, Table& table) {
  const int n = 1 << bits;
  std::uniform_int_distribution<int> entry(-127, 127);
  std::memset(table, 0, sizeof table);
  for (int h = 0; h < n; ++h) table[0][h] = static_cast<int8_t>(entry(random));
  std::sort(table[0], table[0] + n);
  for (int h = 0; h < n; ++h) table[1][h] = static_cast<int8_t>(-table[0][n - 1 - h]);
}

TEST(LevelSums, AddUpToTheLevelsOfEveryTableTheySayTheyTake) {
  std::mt19937 random(7);
  for (const unsigned bits : {3u, 4u}) {
    unsigned taken = 0;
    for (int round = 0; round < 2000; ++round) {
      Table table;
      draw(bits, random, table);
      const TrellisMatrix w = matrix(bits, table);
      taken += w.differences;
      if (!w.differences) continue;
      for (unsigned s = 0; s < 2; ++s)
        for (unsigned h = 0; h < 1u << bits; ++h)
          ASSERT_EQ((bits == 3 ? sum3(w, s, h) : sum4(w, s, h)), table[s][h])
              << bits << " bits, T[" << s << "][" << h << "]";
    }
    EXPECT_GT(taken, 10u) << bits;
  }
}

TEST(LevelSums, TakeLevelsAtTheirLimits) {
  Table table = {};
  for (int h = 0; h < 16; ++h) {
    table[0][h] = static_cast<int8_t>(h < 8 ? 0 : 127);
    table[1][h] = static_cast<int8_t>(h < 8 ? -127 : 0);
  }
  const TrellisMatrix w = matrix(4, table);
  ASSERT_TRUE(w.differences);
  for (unsigned s = 0; s < 2; ++s)
    for (unsigned h = 0; h < 16; ++h) EXPECT_EQ(sum4(w, s, h), table[s][h]);
}

TEST(LevelSums, RefuseWhatNoLookupsAddUpTo) {
  Table table = {};
  table[1][3] = 1;  // T[0] - T[1] is negative
  EXPECT_FALSE(matrix(3, table).differences);
  EXPECT_FALSE(matrix(4, table).differences);
  Table far = {};
  far[0][5] = 100, far[1][5] = -100;
  EXPECT_FALSE(matrix(3, far).differences);
  EXPECT_FALSE(matrix(4, far).differences);
  EXPECT_FALSE(matrix(2, table).differences) << "two bits have no need of it";
}

}  // namespace
}  // namespace upg::cuda
