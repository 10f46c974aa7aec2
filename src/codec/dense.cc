#include "codec/dense.h"

#include <array>
#include <cstring>

#include "base/error.h"
#include "base/float16.h"

namespace upg {
namespace {

template <typename Stored, float (*ToFloat)(Stored)>
void decode_dense(const Matrix& matrix, uint64_t row, float* out) {
  const DenseView& w = dense_view(matrix);
  for (uint64_t c = 0; c < w.cols; ++c) {
    Stored stored;
    std::memcpy(&stored, w.data + (row * w.cols + c) * sizeof stored, sizeof stored);
    out[c] = ToFloat(stored);
  }
}

float same(float value) { return value; }

template <typename Stored, Stored (*FromFloat)(float)>
EncodedMatrix encode_dense(const Codec& codec, DType dtype, uint64_t rows, uint64_t cols, const RowSource& source) {
  std::vector<std::byte> data(rows * cols * sizeof(Stored));
  std::vector<float> row(cols);
  for (uint64_t r = 0; r < rows; ++r) {
    source(r, row);
    for (uint64_t c = 0; c < cols; ++c) {
      const Stored stored = FromFloat(row[c]);
      std::memcpy(data.data() + (r * cols + c) * sizeof stored, &stored, sizeof stored);
    }
  }
  EncodedMatrix encoded{&codec, rows, cols, {}};
  encoded.components.push_back({"", dtype, {rows, cols}, std::move(data)});
  return encoded;
}

Matrix open_dense(const Codec& codec, DType dtype, std::string_view name, uint64_t rows, uint64_t cols,
                  std::span<const TensorView> parts) {
  const TensorView& part = require_part(name, parts, "", dtype, std::array<uint64_t, 2>{rows, cols});
  if (parts.size() != 1) fail(ErrorCode::kInvalidFile, "{}: has {} parts, {} has 1", name, parts.size(), codec.id);
  auto view = std::make_shared<DenseView>();
  *view = {rows, cols, reinterpret_cast<const unsigned char*>(part.data.data())};
  return Matrix{&codec, rows, cols, std::move(view)};
}

}  // namespace

#define UPG_DENSE_CODEC(NAME, ID, DTYPE, STORED, TO_FLOAT, FROM_FLOAT, SUMMARY)                    \
  const Codec NAME = {                                                                             \
      ID,                                                                                          \
      1,                                                                                           \
      "2.0",                                                                                       \
      SUMMARY,                                                                                     \
      "f32",                                                                                       \
      [](uint64_t rows, uint64_t cols, double) { return rows * cols * sizeof(STORED); },           \
      [](uint64_t rows, uint64_t cols, const RowSource& source, const EncodeOptions&) {            \
        return encode_dense<STORED, FROM_FLOAT>(NAME, DTYPE, rows, cols, source);                  \
      },                                                                                           \
      [](std::string_view name, uint64_t rows, uint64_t cols, std::span<const TensorView> parts) { \
        return open_dense(NAME, DTYPE, name, rows, cols, parts);                                   \
      },                                                                                           \
      decode_dense<STORED, TO_FLOAT>,                                                              \
  };

UPG_DENSE_CODEC(kBf16Codec, "bf16", DType::kBF16, uint16_t, bf16_to_float, float_to_bf16, "bfloat16, uncompressed")
UPG_DENSE_CODEC(kF16Codec, "f16", DType::kF16, uint16_t, f16_to_float, float_to_f16, "IEEE half, uncompressed")
UPG_DENSE_CODEC(kF32Codec, "f32", DType::kF32, float, same, same, "float32, uncompressed")

const Codec* dense_codec(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return &kBf16Codec;
    case DType::kF16:
      return &kF16Codec;
    case DType::kF32:
      return &kF32Codec;
    default:
      return nullptr;
  }
}

}  // namespace upg
