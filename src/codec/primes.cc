// Levels of the prime manifold, computed from the baked-in table.
#include "codec/primes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "base/error.h"

namespace upg {

const uint32_t kPrimes[kPrimeCount] = {
#include "codec/primes.inc"
};

double manifold_level(uint16_t index) {
  UPG_CHECK(index < kPrimeCount);
  return 2.0 * kPrimes[index] / kPrimes[kPrimeCount - 1] - 1.0;
}

int8_t manifold_int8(uint16_t index) {
  return static_cast<int8_t>(std::lround(127.0 * manifold_level(index)));  // lround: halves away from zero
}

uint16_t nearest_prime_index(double m) {
  if (!(m > manifold_level(0))) return 0;
  if (m >= 1.0) return kPrimeCount - 1;
  const double target = (m + 1.0) * 0.5 * kPrimes[kPrimeCount - 1];
  const uint32_t* at_or_above = std::lower_bound(std::begin(kPrimes), std::end(kPrimes) - 1, target);
  auto index = static_cast<uint16_t>(at_or_above - kPrimes);
  // Compare levels rather than primes, so that rounding in `target` cannot pick the farther neighbour.
  if (index > 0 && m - manifold_level(static_cast<uint16_t>(index - 1)) <= manifold_level(index) - m) --index;
  return index;
}

uint16_t int8_to_prime_index(int8_t level) {
  UPG_CHECK(level != -128);
  return nearest_prime_index(level / 127.0);
}

const float* manifold_half_levels() {
  static const auto table = [] {
    std::array<float, kPrimeCount> levels;
    for (uint32_t i = 0; i < kPrimeCount; ++i)
      levels[i] = static_cast<float>(manifold_level(static_cast<uint16_t>(i)) * 0.5);
    return levels;
  }();
  return table.data();
}

}  // namespace upg
