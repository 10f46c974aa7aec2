// Unsigned 64-bit arithmetic on numbers that a file or a request supplied: overflow is reported, never wrapped.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace upg {

inline std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  uint64_t product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

/// Product of all dimensions; 1 for a scalar. nullopt on overflow.
inline std::optional<uint64_t> checked_product(std::span<const uint64_t> dims) {
  uint64_t product = 1;
  for (uint64_t dim : dims) {
    auto next = checked_mul(product, dim);
    if (!next) return std::nullopt;
    product = *next;
  }
  return product;
}

constexpr uint64_t ceil_div(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

}  // namespace upg
