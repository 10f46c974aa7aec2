// The uncompressed codecs: bits in, the same bits out, at any alignment.
#include "codec/dense.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/float16.h"
#include "upg/error.h"

namespace upg {
namespace {

const std::vector<float> kWeights = {0.0f, -0.0f, 1.0f, -2.5f, 65504.0f, 0x1p-14f, 0x1p-24f, 0.333251953125f};

EncodedMatrix encode(const Codec& codec) {
  const RowSource source = [](uint64_t row, std::span<float> out) {
    for (size_t c = 0; c < out.size(); ++c) out[c] = kWeights[row * out.size() + c];
  };
  return codec.encode(2, 4, source, {});
}

std::vector<float> decode(const Matrix& matrix) {
  std::vector<float> out(matrix.rows * matrix.cols, 99.0f);
  for (uint64_t r = 0; r < matrix.rows; ++r) matrix.codec->decode_row(matrix, r, out.data() + r * matrix.cols);
  return out;
}

uint32_t bits(float value) { return std::bit_cast<uint32_t>(value); }

TEST(Dense, Float32KeepsEveryBit) {
  const EncodedMatrix encoded = encode(kF32Codec);
  const auto out = decode(open_encoded(encoded));
  for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(bits(out[i]), bits(kWeights[i]));
}

TEST(Dense, SixteenBitCodecsRoundToNearest) {
  const EncodedMatrix half = encode(kF16Codec), brain = encode(kBf16Codec);
  const auto from_half = decode(open_encoded(half)), from_brain = decode(open_encoded(brain));
  for (size_t i = 0; i < kWeights.size(); ++i) {
    EXPECT_EQ(bits(from_half[i]), bits(f16_to_float(float_to_f16(kWeights[i]))));
    EXPECT_EQ(bits(from_brain[i]), bits(bf16_to_float(float_to_bf16(kWeights[i]))));
    EXPECT_EQ(from_half[i], kWeights[i]);  // all of them are halves
  }
}

TEST(Dense, BitsOfACheckpointArriveUnchangedInfinitiesAndNanIncluded) {
  const std::vector<uint16_t> stored = {0x7f80, 0xff80, 0x7fc1, 0x0001};
  const std::vector<std::byte> data(reinterpret_cast<const std::byte*>(stored.data()),
                                    reinterpret_cast<const std::byte*>(stored.data()) + 8);
  const TensorView view{"", DType::kBF16, {1, 4}, data};
  const auto out = decode(kBf16Codec.open("w", 1, 4, std::span(&view, 1)));
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(bits(out[i]), uint32_t{stored[i]} << 16);
}

TEST(Dense, UnalignedDataReadsTheSame) {
  for (const Codec* codec : {&kBf16Codec, &kF16Codec, &kF32Codec}) {
    const EncodedMatrix encoded = encode(*codec);
    const auto& component = encoded.components[0];
    std::vector<std::byte> storage(component.data.size() + 1);
    std::memcpy(storage.data() + 1, component.data.data(), component.data.size());
    const TensorView view{"", component.dtype, component.shape, std::span(storage).subspan(1)};
    EXPECT_EQ(decode(codec->open("w", 2, 4, std::span(&view, 1))), decode(open_encoded(encoded)));
  }
}

TEST(Dense, RefusalsNameTheTensorItself) {
  EncodedMatrix bad = encode(kF32Codec);
  bad.components[0].shape = {4, 2};
  try {
    open_encoded(bad);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "matrix: is F32 [4, 2], must be F32 [2, 4]");
  }
  bad.components.clear();
  try {
    open_encoded(bad);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "matrix: tensor matrix is missing");
  }
}

TEST(Dense, ElementTypesFindTheirCodec) {
  EXPECT_EQ(dense_codec(DType::kBF16), &kBf16Codec);
  EXPECT_EQ(dense_codec(DType::kF16), &kF16Codec);
  EXPECT_EQ(dense_codec(DType::kF32), &kF32Codec);
  EXPECT_EQ(dense_codec(DType::kI8), nullptr);
}

}  // namespace
}  // namespace upg
