// Half and bfloat16 conversions against a reference in double arithmetic that searches the nearest representable value.
#include "base/float16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace upg {
namespace {

/// The value of a 16-bit float with `exponent_bits`, from its definition. Infinity's code stands for the next power of
/// two, which is what rounding compares with.
double magnitude_of(uint16_t code, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = code >> mantissa_bits;
  const int mantissa = code & ((1 << mantissa_bits) - 1);
  if (exponent == 0) return std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

/// Nearest code by bisection over the ordered codes, ties to the even code.
uint16_t nearest(float value, int exponent_bits) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const uint16_t infinity = static_cast<uint16_t>(((1 << exponent_bits) - 1) << (15 - exponent_bits));
  const double magnitude = std::fabs(static_cast<double>(value));
  uint16_t low = 0, high = infinity;
  if (magnitude >= magnitude_of(infinity, exponent_bits)) return static_cast<uint16_t>(sign | infinity);
  while (high - low > 1) {
    const uint16_t middle = static_cast<uint16_t>((low + high) / 2);
    (magnitude_of(middle, exponent_bits) <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - magnitude_of(low, exponent_bits);
  const double above = magnitude_of(high, exponent_bits) - magnitude;
  const bool up = above < below || (above == below && low % 2 == 1);
  return static_cast<uint16_t>(sign | (up ? high : low));
}

std::vector<float> interesting_floats() {
  std::vector<float> values;
  std::mt19937 random(1);
  for (int i = 0; i < 200'000; ++i) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!std::isnan(value)) values.push_back(value);
    values.push_back(std::ldexp(static_cast<float>(random()) * 0x1p-32f, static_cast<int>(random() % 48) - 30));
  }
  for (uint32_t code = 0; code < 0x7c00; ++code) {  // every half, every midpoint of two, and their neighbours
    const float half = static_cast<float>(magnitude_of(static_cast<uint16_t>(code), 5));
    const float middle = static_cast<float>(
        (magnitude_of(static_cast<uint16_t>(code), 5) + magnitude_of(static_cast<uint16_t>(code + 1), 5)) / 2);
    for (float each : {half, middle})
      for (float value : {std::nextafter(each, 0.0f), each, std::nextafter(each, 1e9f)}) {
        values.push_back(value);
        values.push_back(-value);
      }
  }
  for (uint32_t code = 0; code < 0x7f80; ++code)  // bfloat16 midpoints and their neighbours
    for (uint32_t low : {0x7fffu, 0x8000u, 0x8001u}) values.push_back(std::bit_cast<float>(code << 16 | low));
  return values;
}

TEST(Half, EveryCodeConvertsToItsExactValueAndBack) {
  for (uint32_t code = 0; code <= 0xffff; ++code) {
    const uint16_t half = static_cast<uint16_t>(code);
    const float value = f16_to_float(half);
    const uint16_t magnitude = half & 0x7fff;
    if (magnitude > 0x7c00) {
      ASSERT_TRUE(std::isnan(value)) << code;
      ASSERT_GT(float_to_f16(value) & 0x7fff, 0x7c00) << code;
      continue;
    }
    const double expected = magnitude == 0x7c00 ? std::numeric_limits<double>::infinity() : magnitude_of(magnitude, 5);
    ASSERT_EQ(std::fabs(static_cast<double>(value)), expected) << code;
    ASSERT_EQ(std::signbit(value), (half & 0x8000) != 0) << code;
    ASSERT_EQ(float_to_f16(value), half) << code;
  }
}

TEST(Half, FloatsRoundToNearestWithTiesToEven) {
  for (const float value : interesting_floats()) ASSERT_EQ(float_to_f16(value), nearest(value, 5)) << value;
}

TEST(Half, OverflowBecomesInfinityAndTinyBecomesSignedZero) {
  EXPECT_EQ(float_to_f16(65504.0f), 0x7bff);
  EXPECT_EQ(float_to_f16(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(float_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_f16(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(float_to_f16(0x1p-25f), 0x0000);
  EXPECT_EQ(float_to_f16(-0x1p-25f), 0x8000);
  EXPECT_EQ(float_to_f16(std::nextafter(0x1p-25f, 1.0f)), 0x0001);
}

TEST(BFloat16, EveryCodeConvertsToItsExactValueAndBack) {
  for (uint32_t code = 0; code <= 0xffff; ++code) {
    const uint16_t bits = static_cast<uint16_t>(code);
    const float value = bf16_to_float(bits);
    if ((bits & 0x7fff) > 0x7f80) {
      ASSERT_TRUE(std::isnan(value));
      ASSERT_GT(float_to_bf16(value) & 0x7fff, 0x7f80) << code;
      continue;
    }
    if ((bits & 0x7fff) < 0x7f80) {
      ASSERT_EQ(std::fabs(static_cast<double>(value)), magnitude_of(bits & 0x7fff, 8)) << code;
    }
    ASSERT_EQ(float_to_bf16(value), bits) << code;
  }
}

TEST(BFloat16, FloatsRoundToNearestWithTiesToEven) {
  for (const float value : interesting_floats()) ASSERT_EQ(float_to_bf16(value), nearest(value, 8)) << value;
}

TEST(BFloat16, NaNWhosePayloadIsInTheLowBitsStaysNaN) {
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(0xffffffffu)))));
}

}  // namespace
}  // namespace upg
