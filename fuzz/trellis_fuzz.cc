// Bytes as the parts of a manifold trellis matrix, with a residual or without: opened, decoded, unpacked and multiplied
// by every kernel that runs here. Only upg::Error may come out; what opens decodes to finite weights, and all kernels
// agree.
#include "codec/mdcsr.h"
#include "codec/primes.h"
#include "codec/trellis.h"
#include "kernel_check.h"
#include "upg/error.h"

namespace {

using upg::DType;
using upg::fuzz::Input;

// Parts of a valid residual, or bytes that may be one.
std::vector<upg::EncodedMatrix::Component> residual_parts(Input& input, bool valid, uint64_t rows, uint64_t cols) {
  if (valid) {
    std::vector<upg::mdcsr::Entry> entries;
    std::vector<float> scales(rows);
    for (uint32_t r = 0; r < rows; ++r) {
      scales[r] = std::ldexp(static_cast<float>(input.number<int8_t>()), input.number<int8_t>() / 2);
      for (uint64_t c = input.number<uint8_t>(); c < cols; c += 1 + 2 * uint64_t{input.number<uint8_t>()})
        entries.push_back({r, static_cast<uint32_t>(c), std::max<int8_t>(input.number<int8_t>(), -127)});
    }
    return upg::mdcsr::build_parts(upg::kTrellisResidual, rows, cols, entries, scales);
  }
  const uint64_t nnz = input.number<uint8_t>();
  std::vector<std::byte> pointers(4 * (rows + 1)), scales = input.take(4 * rows);
  for (uint64_t r = 0; r <= rows; ++r) {
    const uint32_t pointer = r == rows ? static_cast<uint32_t>(nnz) : r == 0 ? 0 : input.number<uint8_t>();
    std::memcpy(pointers.data() + 4 * r, &pointer, 4);
  }
  return {{"residual_values", DType::kI8, {nnz}, input.take(nnz)},
          {"residual_delta_indices", DType::kU8, {nnz}, input.take(nnz)},
          {"residual_row_pointers", DType::kU32, {rows + 1}, std::move(pointers)},
          {"residual_scales", DType::kF32, {rows}, std::move(scales)}};
}

void open_parts(Input& input) {
  const auto flags = input.number<uint8_t>();
  const unsigned bits = 2 + flags % 3;
  const upg::Codec& codec = bits == 2 ? upg::kTrellis2Codec : bits == 3 ? upg::kTrellis3Codec : upg::kTrellis4Codec;
  const uint64_t rows = input.number<uint8_t>() % 40;
  const uint64_t cols = input.number<uint8_t>() % 136 + (flags & 64 ? 512 : 0);  // the wide ones for bridges
  const auto damage = input.number<uint8_t>();  // which part gets a wrong shape, type or count of bytes
  const uint64_t panels = (rows + 15) / 16, blocks = (cols + 31) / 32;
  std::vector<std::byte> steps = input.take(16), codebook = input.take(2u << bits), row_scales = input.take(2 * rows);
  if (flags & 16) {  // valid row scales and codebook, so that the rest gets looked at
    for (uint64_t r = 0; r < rows; ++r) {
      uint16_t scale;
      std::memcpy(&scale, row_scales.data() + 2 * r, 2);
      scale = static_cast<uint16_t>(0x0d80 + scale % (0x7180 - 0x0d80 + 1));  // 2^-100 to 2^100
      std::memcpy(row_scales.data() + 2 * r, &scale, 2);
    }
    for (size_t h = 0; h < size_t{1} << bits; ++h) {
      uint16_t index;
      std::memcpy(&index, codebook.data() + 2 * h, 2);
      index = static_cast<uint16_t>(index % upg::kPrimeCount);
      std::memcpy(codebook.data() + 2 * h, &index, 2);
    }
  }
  std::vector<std::byte> x_bytes = input.take(cols);
  std::vector<upg::EncodedMatrix::Component> components = {
      {"codes", DType::kU32, {panels, blocks, bits, 16}, input.take(panels * blocks * bits * 64)},
      {"block_scales", DType::kU8, {panels, blocks, 8}, input.take(panels * blocks * 8)},
      {"row_scales", DType::kBF16, {rows}, std::move(row_scales)},
      {"steps", DType::kU8, {16}, std::move(steps)},
      {"codebook", DType::kU16, {uint64_t{1} << bits}, std::move(codebook)},
  };
  const auto whole = components;  // without the residual
  if (flags & 128)
    for (auto& component : residual_parts(input, (flags & 8) != 0, rows, cols))
      components.push_back(std::move(component));
  upg::EncodedMatrix::Component& damaged = components[damage % components.size()];
  if (damage / 9 == 1) damaged.data.resize(damaged.data.size() / 2);
  if (damage / 9 == 2) ++damaged.shape[damage % damaged.shape.size()];
  if (damage / 9 == 3) damaged.shape[damage % damaged.shape.size()] = UINT64_MAX / 2;
  if (damage / 9 == 4) damaged.dtype = DType::kI16;
  if (damage / 9 == 5) damaged.suffix += "s";
  if (damage / 9 == 6) components.pop_back();

  const upg::fuzz::Parts parts(components, (flags & 32) != 0);  // unaligned on request
  const upg::Matrix matrix = codec.open("fuzz", rows, cols, parts.views);
  const std::vector<float> dense = upg::fuzz::decode(matrix);
  for (float weight : dense) REQUIRE(std::isfinite(weight));
  upg::fuzz::check_unpack(matrix, dense);
  std::vector<float> x(cols);
  for (uint64_t c = 0; c < cols; ++c) x[c] = static_cast<float>(static_cast<int8_t>(x_bytes[c]));
  if (!(flags & 128)) return upg::fuzz::check_products(matrix, dense, x);

  // What opened is whole; the residual as a matrix of its own.
  std::vector<upg::EncodedMatrix::Component> alone(components.begin() + 5, components.end());
  for (auto& component : alone) component.suffix.erase(0, upg::kTrellisResidual.size());
  const upg::fuzz::Parts base_parts(whole, 0), residual(alone, 0);
  const std::vector<float> base = upg::fuzz::decode(codec.open("base", rows, cols, base_parts.views));
  const std::vector<float> more = upg::fuzz::decode(upg::kMdcsrCodec.open("residual", rows, cols, residual.views));
  for (size_t i = 0; i < dense.size(); ++i) REQUIRE(dense[i] == base[i] + more[i]);
  upg::fuzz::check_products(matrix, base, x, more);
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
