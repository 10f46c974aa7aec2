// Bytes as the parts of an MdCSR matrix: opened, every row decoded, multiplied. Or bytes as weights: encoded, opened.
// Only upg::Error may come out, and what opens must decode to finite weights.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "codec/mdcsr.h"
#include "kernel_check.h"
#include "upg/error.h"

namespace {

using upg::fuzz::Input;

void use(const upg::Matrix& matrix) {
  std::vector<float> row(matrix.cols);
  const std::vector<float> x(matrix.cols, 1.0f);
  std::vector<double> y(matrix.rows);
  upg::mdcsr_spmv_ref(upg::mdcsr_view(matrix), x.data(), y.data());
  for (uint64_t r = 0; r < matrix.rows; ++r) {
    matrix.codec->decode_row(matrix, r, row.data());
    double sum = 0;
    for (float weight : row) {
      REQUIRE(std::isfinite(weight));
      sum += double{weight};
    }
    REQUIRE(sum == y[r]);
  }
}

void open_parts(const upg::Codec& codec, Input& input, uint8_t flags) {
  const uint64_t rows = input.number<uint8_t>() % 16;
  const uint64_t cols = input.number<uint16_t>() % 2048;
  const uint8_t damage = input.number<uint8_t>();  // which part gets a wrong length, and how
  const bool repair = (flags & 4) != 0;            // make the pointers plausible, so that the entries get looked at
  std::vector<std::byte> pointers = input.take(4 * (rows + 1));
  const std::vector<std::byte> scales = input.take(4 * rows);
  const uint64_t nnz = input.left() / (&codec == &upg::kMdcsrManifoldCodec ? 4 : 2);
  if (repair) {
    for (uint64_t r = 0; r <= rows; ++r) {
      const auto pointer = static_cast<uint32_t>(r == rows ? nnz : nnz * r / (rows + 1));
      if (r == 0 || r == rows || (flags & 8) != 0) std::memcpy(pointers.data() + 4 * r, &pointer, 4);
    }
  }
  std::vector<upg::EncodedMatrix::Component> components = {
      {"values", upg::DType::kI8, {nnz}, input.take(nnz)},
      {"delta_indices", upg::DType::kU8, {nnz}, input.take(nnz)},
      {"row_pointers", upg::DType::kU32, {rows + 1}, std::move(pointers)},
      {"scales", upg::DType::kF32, {rows}, scales},
  };
  if (&codec == &upg::kMdcsrManifoldCodec)
    components.push_back({"prime_indices", upg::DType::kU16, {nnz}, input.take(2 * nnz)});
  if (damage < components.size()) components[damage].data.resize(components[damage].data.size() / 2);
  if (damage >= 8 && damage - 8u < components.size()) ++components[damage - 8u].shape[0];

  const upg::fuzz::Parts parts(components, flags & 1);  // unaligned on request
  use(codec.open("fuzz", rows, cols, parts.views));
}

void encode_weights(const upg::Codec& codec, Input& input) {
  const uint64_t rows = input.number<uint8_t>() % 8;
  const double density = input.number<uint8_t>() / 250.0;
  const uint64_t cols = rows == 0 ? 0 : input.left() / (4 * rows);
  const std::vector<std::byte> weights = input.take(4 * rows * cols);
  const upg::RowSource source = [&](uint64_t row, std::span<float> out) {
    if (cols != 0) std::memcpy(out.data(), weights.data() + 4 * row * cols, 4 * cols);
  };
  const upg::EncodedMatrix encoded = codec.encode(rows, cols, source, upg::EncodeOptions{density, {}});
  try {
    use(upg::open_encoded(encoded));
  } catch (const upg::Error&) {
    __builtin_trap();  // what the encoder writes must open
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const auto flags = input.number<uint8_t>();
  const upg::Codec& codec = (flags & 2) != 0 ? upg::kMdcsrManifoldCodec : upg::kMdcsrCodec;
  try {
    if (flags >> 4 == 15) {  // seldom: the encoder's histograms are slow to clear
      encode_weights(codec, input);
    } else {
      open_parts(codec, input, flags);
    }
  } catch (const upg::Error&) {
  }
  return 0;
}
