// Int8 rows: what is stored for what is given, how near it comes, and every rule of open() broken once.
#include "codec/int8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "codec/test_util.h"
#include "format/safetensors.h"
#include "upg/error.h"

namespace upg {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

EncodedMatrix encode(uint64_t rows, uint64_t cols, const std::vector<float>& weights,
                     const EncodeOptions& options = {}) {
  const RowSource source = [&](uint64_t row, std::span<float> out) {
    std::copy_n(weights.begin() + static_cast<ptrdiff_t>(row * cols), cols, out.begin());
  };
  return kInt8Codec.encode(rows, cols, source, options);
}

std::vector<float> decode(const EncodedMatrix& encoded) {
  const Matrix matrix = open_encoded(encoded);
  std::vector<float> out(matrix.rows * matrix.cols, 99.0f);
  for (uint64_t r = 0; r < matrix.rows; ++r) kInt8Codec.decode_row(matrix, r, out.data() + r * matrix.cols);
  return out;
}

std::string refusal(const EncodedMatrix& encoded) {
  try {
    open_encoded(encoded);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidFile);
    return error.what();
  }
  return "accepted";
}

std::vector<float> normals(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(n);
  for (float& value : out) value = normal(random);
  return out;
}

void set_scale(EncodedMatrix& encoded, uint64_t row, float scale) {
  std::memcpy(encoded.components[1].data.data() + 4 * row, &scale, 4);
}

TEST(Int8, MultiplesOfAPowerOfTwoComeBackExactly) {
  const std::vector<float> weights = {127 * 0x1p-9f, -127 * 0x1p-9f, 0.0f, 0x1p-9f, 64.0f, -127 * 2.0f, 2.0f, -6.0f};
  EXPECT_EQ(decode(encode(2, 4, weights)), weights);
}

TEST(Int8, AWeightIsTheFloatProductOfItsScaleAndItsValue) {
  EncodedMatrix encoded = encode(1, 3, {127.0f, -127.0f, 0.0f});
  set_scale(encoded, 0, 0.1f);
  EXPECT_THAT(decode(encoded), ElementsAre(0.1f * 127.0f, 0.1f * -127.0f, 0.0f));
}

TEST(Int8, NormalWeightsComeBackWithinOnePercent) {
  const std::vector<float> weights = normals(8 * 4096, 1);
  const std::vector<float> decoded = decode(encode(8, 4096, weights));
  double error = 0, power = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    error += std::pow(double{decoded[i]} - double{weights[i]}, 2);
    power += std::pow(double{weights[i]}, 2);
  }
  EXPECT_LT(std::sqrt(error / power), 0.01);
}

TEST(Int8, AnOutlierIsCutWhereTheOthersGainMoreThanItLoses) {
  std::vector<float> weights = normals(60000, 2);
  weights[7] = 6.0f;
  const EncodedMatrix encoded = encode(1, weights.size(), weights);
  EXPECT_LT(int8_view(open_encoded(encoded)).scales[0], 5.9f / 127);
  EXPECT_EQ(int8_view(open_encoded(encoded)).values[7], 127);
}

TEST(Int8, RowsOfZerosHaveScaleZero) {
  const EncodedMatrix encoded = encode(2, 3, {0.0f, -0.0f, 0.0f, 1.0f, 0.0f, 0.0f});
  EXPECT_EQ(int8_view(open_encoded(encoded)).scales[0], 0.0f);
  EXPECT_THAT(decode(encoded), ElementsAre(0.0f, 0.0f, 0.0f, ::testing::FloatNear(1.0f, 1e-6f), 0.0f, 0.0f));
}

TEST(Int8, TheEndsOfTheRangeOfFloatsStayFiniteAndClose) {
  for (float top : {FLT_MAX, 3e38f, 1e38f, FLT_MIN, 0x1p-140f, 0x1p-149f}) {
    const std::vector<float> decoded = decode(encode(1, 3, {top, -top, top / 2}));
    for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(std::abs(decoded[i]) / double{top}, 1.0, 0.01) << top;
    EXPECT_EQ(std::signbit(decoded[1]), true);
  }
}

TEST(Int8, ThreadsDoNotChangeAByte) {
  const std::vector<float> weights = normals(100 * 33, 3);
  EncodeOptions threaded;
  threaded.parallel = [](uint64_t n, const std::function<void(uint64_t)>& body) {
    std::vector<std::thread> threads;
    for (uint64_t i = n; i-- > 0;) threads.emplace_back([&body, i] { body(i); });
    for (std::thread& thread : threads) thread.join();
  };
  const EncodedMatrix one = encode(100, 33, weights), many = encode(100, 33, weights, threaded);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(one.components[i].data, many.components[i].data);
}

TEST(Int8, ValueMinus128IsRefusedWithItsPlace) {
  EncodedMatrix encoded = encode(3, 5, normals(15, 4));
  encoded.components[0].data[5 + 3] = std::byte{0x80};
  EXPECT_THAT(refusal(encoded), HasSubstr("matrix.values: row 1, column 3 is -128"));
}

TEST(Int8, ScalesThatAreNotFiniteOrWouldOverflowAreRefusedWithTheirRow) {
  EncodedMatrix encoded = encode(3, 5, normals(15, 5));
  for (float bad : {INFINITY, -INFINITY, NAN, 2.7e36f, -3e38f}) {
    set_scale(encoded, 2, bad);
    EXPECT_THAT(refusal(encoded), HasSubstr("matrix.scales: row 2 has the scale")) << bad;
  }
  for (float good : {kInt8MaxScale, -kInt8MaxScale, 0.0f, 0x1p-149f}) {
    set_scale(encoded, 2, good);
    EXPECT_EQ(refusal(encoded), "accepted") << good;
    for (float weight : decode(encoded)) EXPECT_TRUE(std::isfinite(weight));
  }
}

TEST(Int8, FurtherPartsAndUnalignedScalesAreRefused) {
  EncodedMatrix encoded = encode(3, 5, normals(15, 6));
  std::vector<std::byte> storage(13);
  std::vector<TensorView> parts;
  for (const auto& part : encoded.components) parts.push_back({part.suffix, part.dtype, part.shape, part.data});
  std::memcpy(storage.data() + 1, parts[1].data.data(), 12);
  parts[1].data = std::span(storage).subspan(1);
  EXPECT_THROW(kInt8Codec.open("odd", 3, 5, parts), Error);
  encoded.components.push_back(encoded.components[0]);
  EXPECT_THAT(refusal(encoded), HasSubstr("has 3 parts, int8 has 2"));
}

TEST(Int8, FileOfTheIndependentEncoderDecodesBitExactly) {
  const auto file = SafetensorsFile::open(UPG_SOURCE_DIR "/tests/data/codec/int8_v1.safetensors");
  const TensorView* expected = file.find("expected");
  ASSERT_NE(expected, nullptr);
  std::vector<TensorView> parts;
  for (TensorView view : file.tensors()) {
    if (!view.name.starts_with("weight.")) continue;
    view.name.erase(0, std::strlen("weight."));
    parts.push_back(view);
  }
  const Matrix matrix = kInt8Codec.open("weight", expected->shape[0], expected->shape[1], parts);
  std::vector<float> row(matrix.cols);
  for (uint64_t r = 0; r < matrix.rows; ++r) {
    kInt8Codec.decode_row(matrix, r, row.data());
    EXPECT_EQ(std::memcmp(row.data(), expected->data.data() + 4 * r * matrix.cols, 4 * matrix.cols), 0) << "row " << r;
  }
}

}  // namespace
}  // namespace upg
