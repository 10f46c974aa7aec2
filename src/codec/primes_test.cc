// The baked-in primes against a sieve, and the manifold's levels in both directions.
#include "codec/primes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

namespace upg {
namespace {

TEST(Primes, TableEqualsASieve) {
  std::vector<bool> composite(104730);
  std::vector<uint32_t> primes;
  for (uint32_t n = 2; n < composite.size(); ++n) {
    if (composite[n]) continue;
    primes.push_back(n);
    for (size_t multiple = 2 * size_t{n}; multiple < composite.size(); multiple += n) composite[multiple] = true;
  }
  ASSERT_EQ(primes.size(), kPrimeCount);
  for (uint32_t i = 0; i < kPrimeCount; ++i) ASSERT_EQ(kPrimes[i], primes[i]) << i;
}

TEST(Primes, LevelsRiseFromJustAboveMinusOneToOne) {
  EXPECT_DOUBLE_EQ(manifold_level(0), 4.0 / 104729 - 1);
  EXPECT_EQ(manifold_level(9999), 1.0);
  for (uint16_t i = 1; i < kPrimeCount; ++i) ASSERT_LT(manifold_level(i - 1), manifold_level(i));
}

TEST(Primes, EveryInt8LevelHasAnIndexThatGivesItBack) {
  std::set<int> reached;
  for (uint16_t i = 0; i < kPrimeCount; ++i) reached.insert(manifold_int8(i));
  EXPECT_EQ(reached.size(), 255u);
  EXPECT_EQ(*reached.begin(), -127);
  EXPECT_EQ(*reached.rbegin(), 127);
  for (int level = -127; level <= 127; ++level)
    EXPECT_EQ(manifold_int8(int8_to_prime_index(static_cast<int8_t>(level))), level);
}

TEST(Primes, NearestIndexIsNearestOverAllIndices) {
  for (int step = 0; step <= 500; ++step) {
    const double m = -1.1 + 2.2 * step / 500;
    const uint16_t found = nearest_prime_index(m);
    uint16_t best = 0;
    for (uint16_t i = 1; i < kPrimeCount; ++i)
      if (std::abs(manifold_level(i) - m) < std::abs(manifold_level(best) - m)) best = i;
    ASSERT_EQ(found, best) << m;
  }
}

TEST(Primes, NearestIndexOfALevelIsItsOwn) {
  for (uint16_t i = 0; i < kPrimeCount; ++i) ASSERT_EQ(nearest_prime_index(manifold_level(i)), i);
}

TEST(Primes, NearestIndexOfAnyDoubleIsInRange) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(nearest_prime_index(-infinity), 0);
  EXPECT_EQ(nearest_prime_index(infinity), kPrimeCount - 1);
  EXPECT_EQ(nearest_prime_index(std::numeric_limits<double>::quiet_NaN()), 0);
}

TEST(Primes, HalfLevelTableIsHalfOfTheLevelsInFloat) {
  const float* half = manifold_half_levels();
  for (uint16_t i = 0; i < kPrimeCount; ++i) ASSERT_EQ(half[i], static_cast<float>(manifold_level(i) / 2));
  EXPECT_EQ(half[9999], 0.5f);
}

}  // namespace
}  // namespace upg
