// MdCSR: the worked example, gaps, golden files, and every kind of damage that open() must name. Encoding is in
// mdcsr_encode_test.cc.
#include "codec/mdcsr.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "codec/primes.h"
#include "codec/test_util.h"
#include "format/safetensors.h"
#include "upg/error.h"

namespace upg {
namespace {

using ::testing::HasSubstr;

// The parts of one matrix, to be damaged one at a time.
struct Parts {
  uint64_t rows = 2;
  uint64_t cols = 600;
  std::vector<int8_t> values = {81, -127, 3, 44, -128, 9, 7};
  std::vector<uint8_t> deltas = {0, 5, 7, 3, 255, 130, 99};
  std::vector<uint32_t> row_pointers = {0, 6, 7};
  std::vector<float> scales = {0.5f, 2.0f};
  std::vector<uint16_t> primes = {417, 9999, 0, 23, 0, 611, 5000};
  bool manifold = false;

  template <typename T>
  static void add(std::vector<EncodedMatrix::Component>& to, const char* suffix, DType dtype,
                  const std::vector<T>& data) {
    EncodedMatrix::Component part{suffix, dtype, {data.size()}, {}};
    part.data.resize(data.size() * sizeof(T));
    if (!data.empty()) std::memcpy(part.data.data(), data.data(), part.data.size());
    to.push_back(std::move(part));
  }
  EncodedMatrix encoded() const {
    EncodedMatrix result{manifold ? &kMdcsrManifoldCodec : &kMdcsrCodec, rows, cols, {}};
    add(result.components, "values", DType::kI8, values);
    add(result.components, "delta_indices", DType::kU8, deltas);
    add(result.components, "row_pointers", DType::kU32, row_pointers);
    add(result.components, "scales", DType::kF32, scales);
    if (manifold) add(result.components, "prime_indices", DType::kU16, primes);
    return result;
  }
};

std::string refusal(const EncodedMatrix& encoded) {
  try {
    open_encoded(encoded);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidFile);
    return error.what();
  }
  return "accepted";
}

std::string refusal(const Parts& parts) { return refusal(parts.encoded()); }

std::vector<float> decoded_row(const Matrix& matrix, uint64_t row) {
  std::vector<float> out(matrix.cols, 99.0f);
  matrix.codec->decode_row(matrix, row, out.data());
  return out;
}

TEST(Mdcsr, DeltasAddUpToColumnsAndBridgesContributeNothing) {
  const EncodedMatrix encoded = Parts{}.encoded();
  const Matrix matrix = open_encoded(encoded);
  std::vector<float> expected(600, 0.0f);
  expected[0] = 40.5f;
  expected[5] = -63.5f;
  expected[12] = 1.5f;
  expected[15] = 22.0f;
  expected[400] = 4.5f;
  EXPECT_EQ(decoded_row(matrix, 0), expected);
  std::vector<float> second(600, 0.0f);
  second[99] = 14.0f;
  EXPECT_EQ(decoded_row(matrix, 1), second);
}

TEST(Mdcsr, PrimeIndexAddsHalfItsLevelToTheValue) {
  Parts parts;
  parts.manifold = true;
  const EncodedMatrix encoded = parts.encoded();
  const Matrix matrix = open_encoded(encoded);
  EXPECT_EQ(decoded_row(matrix, 0)[5], 0.5f * (-127.0f + 0.5f));
  EXPECT_EQ(decoded_row(matrix, 0)[12], 0.5f * (3.0f + static_cast<float>(manifold_level(0) / 2)));
  EXPECT_EQ(decoded_row(matrix, 0)[270], 0.0f);
}

TEST(Mdcsr, ReferenceProductEqualsTheDenseOneAndIgnoresInfinityUnderBridges) {
  Parts parts;
  parts.manifold = true;
  const EncodedMatrix encoded = parts.encoded();
  const Matrix matrix = open_encoded(encoded);
  std::vector<float> dense(2 * 600);
  mdcsr_to_dense(mdcsr_view(matrix), dense.data());
  std::vector<float> x(600);
  for (size_t c = 0; c < 600; ++c) x[c] = std::sin(static_cast<float>(c));
  std::vector<double> expected(2, 0.0);
  for (size_t i = 0; i < dense.size(); ++i) expected[i / 600] += double{dense[i]} * double{x[i % 600]};
  x[270] = std::numeric_limits<float>::infinity();  // where row 0 has a bridge
  std::vector<double> y(2);
  mdcsr_spmv_ref(mdcsr_view(matrix), x.data(), y.data());
  EXPECT_EQ(y, expected);
}

TEST(Mdcsr, AValueRightAfterABridgeMayHaveDeltaZero) {
  Parts parts;
  parts.values = {-128, 5, -128, 0, 7, 1, 2};
  parts.deltas = {255, 0, 255, 0, 1, 1, 3};
  const EncodedMatrix encoded = parts.encoded();
  const Matrix matrix = open_encoded(encoded);
  EXPECT_EQ(decoded_row(matrix, 0)[255], 2.5f);
  EXPECT_EQ(decoded_row(matrix, 0)[511], 3.5f);
}

TEST(Mdcsr, ARowMayEndWithABridgeOrBeEmpty) {
  Parts parts;
  parts.values = {-128, -128};
  parts.deltas = {255, 255};
  parts.row_pointers = {0, 0, 2};
  const EncodedMatrix encoded = parts.encoded();
  const Matrix matrix = open_encoded(encoded);
  EXPECT_EQ(decoded_row(matrix, 0), std::vector<float>(600, 0.0f));
  EXPECT_EQ(decoded_row(matrix, 1), std::vector<float>(600, 0.0f));
}

TEST(Mdcsr, RowPointersThatDoNotRiseFromZeroToTheCountAreRefused) {
  Parts parts;
  parts.row_pointers = {1, 6, 7};
  EXPECT_THAT(refusal(parts), HasSubstr("matrix.row_pointers: starts with 1"));
  parts.row_pointers = {0, 6, 6};
  EXPECT_THAT(refusal(parts), HasSubstr("row_pointers: ends with 6, must end with the number of values, 7"));
  parts.row_pointers = {0, 8, 7};
  EXPECT_THAT(refusal(parts), HasSubstr("row_pointers: falls from 8 to 7 after row 1"));
  parts.row_pointers = {0, 0xffffffff, 7};
  EXPECT_THAT(refusal(parts), HasSubstr("falls from 4294967295 to 7"));
}

TEST(Mdcsr, AColumnPastTheEndIsRefused) {
  Parts parts;
  parts.cols = 401;
  EXPECT_EQ(refusal(parts), "accepted");
  parts.cols = 400;
  EXPECT_THAT(refusal(parts), HasSubstr("delta_indices: entry 5 takes row 0 to column 400, but the matrix has 400"));
  parts.cols = 0;
  EXPECT_THAT(refusal(parts), HasSubstr("entry 0 takes row 0 to column 0"));
}

TEST(Mdcsr, ABridgePastTheEndIsRefused) {
  Parts parts;
  parts.values.back() = -128;
  parts.deltas.back() = 255;
  parts.rows = 1;
  parts.row_pointers = {0, 7};
  parts.scales = {1.0f};
  parts.cols = 656;
  EXPECT_EQ(refusal(parts), "accepted");
  parts.cols = 655;
  EXPECT_THAT(refusal(parts), HasSubstr("entry 6 takes row 0 to column 655"));
}

TEST(Mdcsr, AColumnTwiceInARowIsRefused) {
  Parts parts;
  parts.deltas[2] = 0;
  EXPECT_THAT(refusal(parts), HasSubstr("delta_indices: entry 2 gives column 5 of row 0 twice"));
}

TEST(Mdcsr, TheReservedValueWithAnotherDeltaIsRefused) {
  Parts parts;
  parts.values[3] = -128;
  EXPECT_THAT(refusal(parts),
              HasSubstr("values: entry 3 (row 0) is -128, which is reserved for a delta of 255, not 3"));
}

TEST(Mdcsr, ScalesThatAreNotFiniteOrWouldOverflowAreRefused) {
  for (float scale : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity(), 3e36f}) {
    Parts parts;
    parts.scales[1] = scale;
    EXPECT_THAT(refusal(parts), HasSubstr("matrix.scales: row 1 has the scale"));
  }
  Parts parts;
  parts.manifold = true;
  parts.scales = {-kMdcsrMaxScale, kMdcsrMaxScale};
  parts.values[1] = 127;
  const EncodedMatrix encoded = parts.encoded();
  EXPECT_TRUE(std::isfinite(decoded_row(open_encoded(encoded), 0)[5]));  // 127.5 steps
}

TEST(Mdcsr, APrimeIndexOutsideTheTableIsRefused) {
  Parts parts;
  parts.manifold = true;
  parts.primes[4] = 10000;  // a bridge's, too
  EXPECT_THAT(refusal(parts), HasSubstr("prime_indices: entry 4 (row 0) is 10000, must be below 10000"));
}

TEST(Mdcsr, TheLastEntryOfALongRowIsCheckedToo) {
  Parts parts;
  parts.rows = 1;
  parts.cols = 200000;
  parts.values.assign(200000, 1);
  parts.deltas.assign(200000, 1);
  parts.deltas[0] = 0;
  parts.row_pointers = {0, 200000};
  parts.scales = {1.0f};
  EXPECT_EQ(refusal(parts), "accepted");
  for (size_t k : {size_t{65535}, size_t{65536}, size_t{131072}, size_t{199999}}) {
    parts.deltas[k] = 0;
    EXPECT_THAT(refusal(parts), HasSubstr("entry " + std::to_string(k) + " gives column"));
    parts.deltas[k] = 1;
  }
  parts.cols = 199999;
  EXPECT_THAT(refusal(parts), HasSubstr("entry 199999 takes row 0 to column 199999"));
}

TEST(Mdcsr, MissingMisshapenMistypedRepeatedAndUnknownPartsAreRefusedByName) {
  Parts parts;
  parts.manifold = true;
  const EncodedMatrix good = parts.encoded();
  for (size_t i = 0; i < good.components.size(); ++i) {
    const std::string part = "matrix." + good.components[i].suffix;
    EncodedMatrix bad = good;
    bad.components.erase(bad.components.begin() + static_cast<ptrdiff_t>(i));
    EXPECT_THAT(refusal(bad), HasSubstr(part + " is missing"));
    bad = good;
    bad.components[i].dtype = DType::kBool;
    EXPECT_THAT(refusal(bad), HasSubstr(part + ": is BOOL"));
    bad = good;
    bad.components[i].shape.push_back(1);
    EXPECT_THAT(refusal(bad), HasSubstr(part + ": is "));
    bad = good;
    bad.components[i].shape.clear();
    EXPECT_THAT(refusal(bad), HasSubstr(part + ": is "));
    bad = good;
    bad.components.push_back(good.components[i]);
    EXPECT_THAT(refusal(bad), HasSubstr(part + ": is there twice"));
    for (int step : {-1, 1}) {
      bad = good;
      bad.components[i].shape[0] += static_cast<uint64_t>(step);
      EXPECT_NE(refusal(bad), "accepted");
    }
    for (size_t size = 0; size < good.components[i].data.size(); ++size) {
      bad = good;
      bad.components[i].data.resize(size);  // the shape still claims the rest
      EXPECT_THAT(refusal(bad), HasSubstr(part + ": has " + std::to_string(size) + " bytes"));
    }
  }
  EncodedMatrix bad = good;
  bad.components[2].suffix = "columns";
  EXPECT_THAT(refusal(bad), HasSubstr("matrix.columns: no such part"));
}

TEST(Mdcsr, PrimeIndicesUnderThePlainCodecAreRefused) {
  Parts parts;
  parts.manifold = true;
  EncodedMatrix encoded = parts.encoded();
  encoded.codec = &kMdcsrCodec;
  EXPECT_THAT(refusal(encoded), HasSubstr("the codec is mdcsr_manifold"));
}

TEST(Mdcsr, SizesThatOverflowAreRefused) {
  EncodedMatrix encoded = Parts{}.encoded();
  encoded.rows = std::numeric_limits<uint64_t>::max();
  EXPECT_THAT(refusal(encoded), HasSubstr("rows are too many"));
  encoded.rows = uint64_t{1} << 62;
  encoded.components[2].shape[0] = encoded.rows + 1;
  EXPECT_THAT(refusal(encoded), HasSubstr("row_pointers: has 12 bytes"));
  encoded = Parts{}.encoded();
  encoded.cols = uint64_t{1} << 31;
  EXPECT_THAT(refusal(encoded), HasSubstr("MdCSR allows at most 2147483647"));
}

TEST(Mdcsr, PartsAtOddAddressesAreRead) {
  Parts parts;
  parts.manifold = true;
  const EncodedMatrix encoded = parts.encoded();
  std::vector<std::vector<std::byte>> storage;
  std::vector<TensorView> views;
  for (const auto& component : encoded.components) {
    storage.emplace_back(component.data.size() + 1);
    std::memcpy(storage.back().data() + 1, component.data.data(), component.data.size());
    views.push_back({component.suffix, component.dtype, component.shape, std::span(storage.back()).subspan(1)});
  }
  const Matrix matrix = kMdcsrManifoldCodec.open("odd", parts.rows, parts.cols, views);
  EXPECT_EQ(decoded_row(matrix, 0), decoded_row(open_encoded(encoded), 0));
}

TEST(Mdcsr, AnyFlippedByteIsRefusedOrDecodesToFiniteWeights) {
  Parts parts;
  parts.manifold = true;
  const EncodedMatrix good = parts.encoded();
  std::vector<float> dense(parts.rows * parts.cols);
  for (size_t part = 0; part < good.components.size(); ++part) {
    for (size_t i = 0; i < good.components[part].data.size(); ++i) {
      for (int bit = 0; bit < 8; ++bit) {
        EncodedMatrix bad = good;
        bad.components[part].data[i] ^= static_cast<std::byte>(1 << bit);
        if (refusal(bad) != "accepted") continue;
        const Matrix matrix = open_encoded(bad);
        mdcsr_to_dense(mdcsr_view(matrix), dense.data());
        for (float weight : dense) ASSERT_TRUE(std::isfinite(weight));
      }
    }
  }
}

class MdcsrGolden : public ::testing::TestWithParam<const Codec*> {};

TEST_P(MdcsrGolden, FileOfTheIndependentEncoderDecodesBitExactly) {
  const Codec& codec = *GetParam();
  const auto file = SafetensorsFile::open(std::string(UPG_SOURCE_DIR "/tests/data/codec/") + std::string(codec.id) +
                                          "_v1.safetensors");
  const TensorView* expected = file.find("expected");
  ASSERT_NE(expected, nullptr);
  ASSERT_EQ(expected->shape.size(), 2u);
  std::vector<TensorView> parts;
  for (TensorView view : file.tensors()) {
    if (!view.name.starts_with("weight.")) continue;
    view.name.erase(0, std::strlen("weight."));
    parts.push_back(view);
  }
  const Matrix matrix = codec.open("weight", expected->shape[0], expected->shape[1], parts);
  std::vector<float> dense(expected->elements());
  mdcsr_to_dense(mdcsr_view(matrix), dense.data());
  for (size_t i = 0; i < dense.size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, expected->data.data() + 4 * i, 4);
    ASSERT_EQ(std::bit_cast<uint32_t>(dense[i]), bits) << "row " << i / matrix.cols << ", column " << i % matrix.cols;
  }
}

INSTANTIATE_TEST_SUITE_P(Codecs, MdcsrGolden, ::testing::Values(&kMdcsrCodec, &kMdcsrManifoldCodec),
                         [](const auto& param) { return std::string(param.param->id); });

}  // namespace
}  // namespace upg
