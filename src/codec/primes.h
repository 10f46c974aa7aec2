// The prime manifold: the first 10,000 primes as a table of levels in (-1, 1], so that a 16-bit index names a number.
#pragma once

#include <cstdint>

namespace upg {

inline constexpr uint32_t kPrimeCount = 10000;
extern const uint32_t kPrimes[kPrimeCount];  // 2, 3, 5, ..., 104729

/// m(i) = 2 P[i] / P[9999] - 1 in double: one division, one subtraction, in that order. `index` < kPrimeCount.
double manifold_level(uint16_t index);

/// round(127 m(i)), halves away from zero: -127 .. 127. `index` < kPrimeCount.
int8_t manifold_int8(uint16_t index);

/// The index whose level is nearest to m; of two equally near, the lower. Below or above all levels: the end one; NaN:
/// 0.
uint16_t nearest_prime_index(double m);

/// An index i with manifold_int8(i) == level, the one nearest to level / 127. -128 is not a level and must not be asked
/// for.
uint16_t int8_to_prime_index(int8_t level);

/// Table [kPrimeCount] of m(i) / 2, computed as manifold_level and rounded to float once. Valid for the program's life.
const float* manifold_half_levels();

}  // namespace upg
