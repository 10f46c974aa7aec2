// Bytes as the parts of an int8 matrix: opened, decoded, unpacked and multiplied by every kernel that runs here. Only
// upg::Error may come out; what opens decodes to finite weights, and all kernels agree.
#include "codec/int8.h"
#include "kernel_check.h"
#include "upg/error.h"

namespace {

using upg::DType;
using upg::fuzz::Input;

void open_parts(Input& input) {
  const auto flags = input.number<uint8_t>();
  const uint64_t rows = input.number<uint8_t>() % 40;
  const uint64_t cols = input.number<uint8_t>() % 80;
  const auto damage = input.number<uint8_t>();  // which part gets a wrong shape, type or count of bytes
  std::vector<std::byte> scales = input.take(4 * rows), x_bytes = input.take(cols);
  if (flags & 1) {  // valid scales, so that the rest gets looked at
    for (uint64_t r = 0; r < rows; ++r) {
      float scale;
      std::memcpy(&scale, scales.data() + 4 * r, 4);
      if (!(std::abs(scale) <= upg::kInt8MaxScale)) scale = 1.0f;
      std::memcpy(scales.data() + 4 * r, &scale, 4);
    }
  }
  std::vector<upg::EncodedMatrix::Component> components = {
      {"values", DType::kI8, {rows, cols}, input.take(rows * cols)},
      {"scales", DType::kF32, {rows}, std::move(scales)},
  };
  upg::EncodedMatrix::Component& damaged = components[damage % 2];
  if (damage / 2 == 1) damaged.data.resize(damaged.data.size() / 2);
  if (damage / 2 == 2) ++damaged.shape[damage / 2 % damaged.shape.size()];
  if (damage / 2 == 3) damaged.shape[0] = UINT64_MAX / 2;
  if (damage / 2 == 4) damaged.dtype = DType::kI16;
  if (damage / 2 == 5) damaged.suffix += "s";
  if (damage / 2 == 6) components.pop_back();

  const upg::fuzz::Parts parts(components, (flags & 2) != 0);  // unaligned on request
  const upg::Matrix matrix = upg::kInt8Codec.open("fuzz", rows, cols, parts.views);
  const std::vector<float> dense = upg::fuzz::decode(matrix);
  for (float weight : dense) REQUIRE(std::isfinite(weight));
  upg::fuzz::check_unpack(matrix, dense);
  std::vector<float> x(cols);
  for (uint64_t c = 0; c < cols; ++c) x[c] = static_cast<float>(static_cast<int8_t>(x_bytes[c]));
  upg::fuzz::check_products(matrix, dense, x);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  try {
    open_parts(input);
  } catch (const upg::Error&) {
  }
  return 0;
}
