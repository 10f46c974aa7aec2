// What the kernel conformance tests share: which rows run here, memory that shows overruns, random data, comparisons.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "kernels/kernel.h"

namespace upg::kernels {

inline constexpr double kRounding = 0x1p-24;    // relative error of one float operation, rounded to nearest
inline constexpr double kUnderflow = 0x1p-149;  // absolute error of one float operation whose result is subnormal
inline constexpr float kPoison = -7.75e22f;     // stands where nothing may be written

/// The rows that this machine can run, the reference included.
template <typename Fn>
std::vector<Kernel<Fn>> runnable(std::span<const Kernel<Fn>> list) {
  std::vector<Kernel<Fn>> rows;
  for (const Kernel<Fn>& row : list)
    if (isa_available(row.isa)) rows.push_back(row);
  return rows;
}

template <typename Fn>
Kernel<Fn> reference(std::span<const Kernel<Fn>> list, std::string_view variant) {
  for (const Kernel<Fn>& row : list)
    if (row.isa == "ref" && variant_matches(row.variant, variant)) return row;
  ADD_FAILURE() << "no reference for " << variant;
  std::abort();
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(engine_() % n); }
  float normal() { return normal_(engine_); }
  std::vector<float> normals(size_t n, float scale = 1.0f) {
    std::vector<float> values(n);
    for (float& value : values) value = scale * normal();
    return values;
  }
  template <typename T>
  std::vector<T> bits(size_t n) {
    std::vector<T> values(n);
    for (T& value : values) value = static_cast<T>(engine_());
    return values;
  }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

/// Whether |actual - expected| <= bound; where the expected value is beyond float's range, so is the actual one.
inline bool within(float actual, double expected, double bound) {
  if (std::abs(expected) > 0x1.fffffep+127)
    return std::abs(actual) > 0x1.fp+127 && std::signbit(actual) == (expected < 0);
  return std::abs(double{actual} - expected) <= bound;
}

/// Keys and values of consecutive positions put into blocks as a cache has them, from place `first` of the first block
/// on; values may be parts of the keys. Memory that is nobody's is 0xff.
class BlockedCache {
 public:
  BlockedCache(uint64_t positions, uint64_t block_positions, uint64_t first)
      : positions_(positions), block_positions_(block_positions), first_(first) {}

  /// Adds an array of `bytes` a position; returns where it begins in each block.
  uint64_t add(const void* array, uint64_t bytes) {
    const uint64_t at = block_bytes_;
    block_bytes_ += (block_positions_ * bytes + 63) / 64 * 64;
    arrays_.push_back({static_cast<const unsigned char*>(array), bytes, at});
    return at;
  }
  /// Valid as long as this is; after the last add().
  void put_into(AttendArgs& args) {
    const uint64_t n = (first_ + positions_ + block_positions_ - 1) / block_positions_;
    memory_.assign(n, std::vector<unsigned char>(block_bytes_, 0xff));
    blocks_.clear();
    for (std::vector<unsigned char>& block : memory_) blocks_.push_back(block.data());
    for (const Array& a : arrays_)
      for (uint64_t p = 0; p < positions_; ++p) {
        const uint64_t place = first_ + p;
        std::memcpy(memory_[place / block_positions_].data() + a.at + place % block_positions_ * a.bytes,
                    a.from + p * a.bytes, a.bytes);
      }
    args.blocks = blocks_.data();
    args.block_positions = block_positions_;
    args.first = first_;
    args.n_positions = positions_;
  }

 private:
  struct Array {
    const unsigned char* from;
    uint64_t bytes, at;
  };
  uint64_t positions_, block_positions_, first_, block_bytes_ = 0;
  std::vector<Array> arrays_;
  std::vector<std::vector<unsigned char>> memory_;
  std::vector<const unsigned char*> blocks_;
};

}  // namespace upg::kernels
