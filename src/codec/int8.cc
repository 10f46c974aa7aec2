// Int8 rows: the scale of least squared error among a few, then rounding to nearest. Moments are not looked at: at this
// width there is little to gain.
#include "codec/int8.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/checked.h"
#include "base/error.h"
#include "codec/mdcsr.h"

namespace upg {
namespace {

constexpr uint64_t kRowsPerTask = 16;
// Of the scale at which the largest weight is 127: below 1 it is cut off, and the others are rounded more finely.
constexpr float kShrink[] = {1.0f, 0.98f, 0.95f, 0.92f, 0.88f, 0.84f, 0.8f};

// Values as doubles, so that the sum of squares below neither overflows nor underflows. Nearest, halves to even: adding
// 1.5 * 2^52 leaves no bits below one.
double nearest_value(float weight, double inverse) {
  constexpr double kWhole = 0x1.8p52;
  return (std::clamp(double{weight} * inverse, -127.0, 127.0) + kWhole) - kWhole;
}

float encode_row(std::span<const float> row, int8_t* values) {
  float absmax = 0;
  for (float weight : row) absmax = std::max(absmax, std::abs(weight));
  if (absmax == 0) {
    std::fill_n(values, row.size(), int8_t{0});
    return 0;
  }
  float best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (float shrink : kShrink) {
    const float scale = mdcsr::row_scale(absmax * shrink);
    if (scale == 0) continue;  // of a subnormal absmax
    const double inverse = 1 / double{scale};
    double error = 0;
    for (float weight : row) {
      const double off = double{weight} - double{scale} * nearest_value(weight, inverse);
      error += off * off;
    }
    if (error >= least) continue;
    least = error;
    best = scale;
  }
  const double inverse = 1 / double{best};
  for (size_t c = 0; c < row.size(); ++c) values[c] = static_cast<int8_t>(nearest_value(row[c], inverse));
  return best;
}

uint64_t stored_bytes(uint64_t rows, uint64_t cols, double) { return rows * cols + rows * sizeof(float); }

EncodedMatrix encode(uint64_t rows, uint64_t cols, const RowSource& source, const EncodeOptions& options) {
  EncodedMatrix encoded{&kInt8Codec, rows, cols, {}};
  encoded.components.push_back({"values", DType::kI8, {rows, cols}, std::vector<std::byte>(rows * cols)});
  encoded.components.push_back({"scales", DType::kF32, {rows}, std::vector<std::byte>(rows * sizeof(float))});
  auto* values = reinterpret_cast<int8_t*>(encoded.components[0].data.data());
  std::byte* scales = encoded.components[1].data.data();
  options.for_each(ceil_div(rows, kRowsPerTask), [&](uint64_t task) {
    std::vector<float> row(cols);
    for (uint64_t r = task * kRowsPerTask; r < std::min(rows, (task + 1) * kRowsPerTask); ++r) {
      source(r, row);
      const float scale = encode_row(row, values + r * cols);
      std::memcpy(scales + r * sizeof scale, &scale, sizeof scale);
    }
  });
  return encoded;
}

Matrix open(std::string_view name, uint64_t rows, uint64_t cols, std::span<const TensorView> parts) {
  const TensorView& values = require_part(name, parts, "values", DType::kI8, std::array<uint64_t, 2>{rows, cols});
  const TensorView& scales = require_part(name, parts, "scales", DType::kF32, std::array<uint64_t, 1>{rows});
  if (parts.size() != 2) fail(ErrorCode::kInvalidFile, "{}: has {} parts, int8 has 2", name, parts.size());
  require_aligned(name, scales);
  auto view = std::make_shared<Int8View>(Int8View{rows, cols, values.as<int8_t>(), scales.as<float>()});
  for (uint64_t r = 0; r < rows; ++r) {
    if (!(std::abs(view->scales[r]) <= kInt8MaxScale))
      fail(ErrorCode::kInvalidFile, "{}.scales: row {} has the scale {}, must be finite and at most {} in magnitude",
           name, r, view->scales[r], kInt8MaxScale);
    if (cols == 0) continue;
    const int8_t* row = view->values + r * cols;
    if (const void* found = std::memchr(row, 0x80, cols))
      fail(ErrorCode::kInvalidFile, "{}.values: row {}, column {} is -128, must be -127 to 127", name, r,
           static_cast<const int8_t*>(found) - row);
  }
  return {&kInt8Codec, rows, cols, std::move(view)};
}

void decode_row(const Matrix& matrix, uint64_t row, float* out) {
  const Int8View& w = int8_view(matrix);
  for (uint64_t c = 0; c < w.cols; ++c) out[c] = w.scales[row] * static_cast<float>(w.values[row * w.cols + c]);
}

}  // namespace

const Codec kInt8Codec = {
    "int8", 1, "3.0", "int8 with a scale for each row, 8 bits a weight", "f32", stored_bytes, encode, open, decode_row,
};

}  // namespace upg
