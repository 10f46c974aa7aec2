// Byte layout of int8 weights with a scale for each row: weight = scales[r] * values[r][c], one float32 product.
#pragma once

#include <stdint.h>

namespace upg {

// Rules that open() checks: no value is -128; scales are finite and at most 2^121 - 2^97 (the largest float / 128) in
// magnitude, so every weight is finite.
constexpr float kInt8MaxScale = 0x1.fffffep+120f;

struct Int8View {
  uint64_t rows;
  uint64_t cols;
  const int8_t* values;  // [rows, cols], row-major
  const float* scales;   // [rows]
};

}  // namespace upg
