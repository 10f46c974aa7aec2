// Manifold trellis: the worked example of docs/format.md, golden files, and every kind of damage that open() must name.
// Encoding is in trellis_encode_test.cc.
#include "codec/trellis.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "base/checked.h"
#include "base/float16.h"
#include "codec/mdcsr.h"
#include "codec/primes.h"
#include "codec/test_util.h"
#include "format/safetensors.h"
#include "upg/error.h"

namespace upg {
namespace {

using ::testing::HasSubstr;

const Codec* const kTrellisCodecs[] = {&kTrellis2Codec, &kTrellis3Codec, &kTrellis4Codec};

template <typename T>
EncodedMatrix::Component part(const char* suffix, DType dtype, std::vector<uint64_t> shape,
                              const std::vector<T>& data) {
  EncodedMatrix::Component result{suffix, dtype, std::move(shape), std::vector<std::byte>(data.size() * sizeof(T))};
  if (!data.empty()) std::memcpy(result.data.data(), data.data(), result.data.size());
  return result;
}

// Any codes are valid. Parts in the order codes, block_scales, row_scales, steps, codebook.
EncodedMatrix random_matrix(unsigned bits, uint64_t rows, uint64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  const uint64_t panels = ceil_div(rows, 16), blocks = ceil_div(cols, 32);
  std::vector<uint32_t> codes(panels * blocks * bits * 16);
  for (uint32_t& word : codes) word = static_cast<uint32_t>(random());
  std::vector<uint8_t> block_scales(panels * blocks * 8), steps(16);
  for (auto* bytes : {&block_scales, &steps})
    for (uint8_t& byte : *bytes) byte = static_cast<uint8_t>(random());
  std::vector<uint16_t> row_scales(rows), codebook(size_t{1} << bits);
  for (uint16_t& scale : row_scales) scale = float_to_bf16(0.5f + static_cast<float>(random() % 100));
  for (uint16_t& index : codebook) index = static_cast<uint16_t>(random() % kPrimeCount);
  EncodedMatrix encoded{kTrellisCodecs[bits - 2], rows, cols, {}};
  encoded.components = {part("codes", DType::kU32, {panels, blocks, bits, 16}, codes),
                        part("block_scales", DType::kU8, {panels, blocks, 8}, block_scales),
                        part("row_scales", DType::kBF16, {rows}, row_scales), part("steps", DType::kU8, {16}, steps),
                        part("codebook", DType::kU16, {codebook.size()}, codebook)};
  return encoded;
}

// Its parts, after the others: values, delta_indices, row_pointers, scales.
void add_residual(EncodedMatrix& encoded, const std::vector<mdcsr::Entry>& entries, const std::vector<float>& scales) {
  for (auto& component : mdcsr::build_parts(kTrellisResidual, encoded.rows, encoded.cols, entries, scales))
    encoded.components.push_back(std::move(component));
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

std::vector<float> decoded_row(const Matrix& matrix, uint64_t row) {
  std::vector<float> out(matrix.cols, 99.0f);
  matrix.codec->decode_row(matrix, row, out.data());
  return out;
}

TEST(Trellis, TheWorkedExampleOfTheFormatDecodesAsWrittenThere) {
  EncodedMatrix encoded = random_matrix(3, 1, 32, 1);
  const std::vector<uint16_t> codebook = {1827, 3414, 4442, 5274, 6107, 6944, 8025, 9999};
  const std::vector<uint8_t> steps = {41, 46, 52, 59, 67, 75, 85, 96, 109, 123, 139, 157, 177, 200, 226, 255};
  std::vector<uint32_t> codes(48);
  codes[0] = 0x0000000d;   // word A of row 0
  codes[16] = 0x00000002;  // B
  codes[32] = 0x8000000e;  // C
  encoded.components = {part("codes", DType::kU32, {1, 1, 3, 16}, codes),
                        part("block_scales", DType::kU8, {1, 1, 8}, std::vector<uint8_t>{12, 0, 0, 0, 0, 0, 0, 0}),
                        part("row_scales", DType::kBF16, {1}, std::vector<uint16_t>{0x3e00}),  // 0.125
                        part("steps", DType::kU8, {16}, steps), part("codebook", DType::kU16, {8}, codebook)};
  const Matrix matrix = open_encoded(encoded);
  const std::vector<int> levels(trellis_view(matrix).table[0], trellis_view(matrix).table[0] + 8);
  EXPECT_EQ(levels, (std::vector<int>{-89, -50, -24, -2, 20, 43, 72, 127}));
  // The chain is 5 2 6 5 0 ... 0 4; its low bits are 1 0 0 1 0 ... 0.
  std::vector<float> expected(32, -89 * 177 * 0x1p-18f);  // T[0][0]
  expected[0] = 43 * 177 * 0x1p-18f;                      // T[0][5]
  expected[8] = -2 * 177 * 0x1p-18f;                      // T[0][2 ^ 1]
  expected[16] = 50 * 177 * 0x1p-18f;                     // T[1][6]
  expected[24] = 20 * 177 * 0x1p-18f;                     // T[0][5 ^ 1]
  expected[4] = -50 * 177 * 0x1p-18f;                     // T[0][0 ^ 1]
  expected[12] = -127 * 177 * 0x1p-18f;                   // T[1][0]
  expected[20] = -50 * 177 * 0x1p-18f;                    // T[0][0 ^ 1]
  expected[31] = 20 * 177 * 0x1p-18f;                     // T[0][4]
  EXPECT_EQ(decoded_row(matrix, 0), expected);
}

TEST(Trellis, CodesOfEveryWidthComeFromTheBitsThatTheFormatNames) {
  // The words of one lane with a single bit set: exactly one code of one weight may change.
  for (unsigned bits : {2u, 3u, 4u}) {
    std::vector<int> seen(32 * bits, 0);
    for (unsigned bit = 0; bit < 32 * bits; ++bit) {
      uint32_t words[4] = {};
      words[bit / 32] = 1u << (bit % 32);
      int changed = 0;
      for (unsigned nibble = 0; nibble < 8; ++nibble) {
        for (unsigned plane = 0; plane < 4; ++plane) {
          const unsigned code = trellis_code(words, 1, bits, plane, nibble);
          if (code == 0) continue;
          ++changed;
          EXPECT_EQ(std::popcount(code), 1);
          ++seen[(4 * nibble + plane) * bits + static_cast<unsigned>(std::countr_zero(code))];
        }
      }
      EXPECT_EQ(changed, 1) << bits << " bits, bit " << bit;
    }
    EXPECT_EQ(seen, std::vector<int>(32 * bits, 1));
  }
}

TEST(Trellis, ColumnsOfABlockAreAPermutation) {
  std::vector<int> seen(32, 0);
  for (unsigned plane = 0; plane < 4; ++plane)
    for (unsigned nibble = 0; nibble < 8; ++nibble) ++seen[trellis_column(plane, nibble)];
  EXPECT_EQ(seen, std::vector<int>(32, 1));
}

TEST(Trellis, PaddingInfluencesOnlyTheChainOfItsOwnBlock) {
  for (unsigned bits : {2u, 3u, 4u}) {
    EncodedMatrix encoded = random_matrix(bits, 17, 40, bits);
    const Matrix matrix = open_encoded(encoded);
    const std::vector<float> before = decoded_row(matrix, 16);
    // Rows 17 to 31 are padding: lanes 1 to 15 of the second panel.
    auto* words = reinterpret_cast<uint32_t*>(encoded.components[0].data.data());
    const size_t panel_words = encoded.components[0].data.size() / 8;
    for (size_t i = panel_words; i < 2 * panel_words; ++i)
      if (i % 16 != 0) words[i] = ~words[i];
    EXPECT_EQ(decoded_row(matrix, 16), before);
  }
}

TEST(Trellis, ZeroScalesStepsAndLevelsDecodeToZero) {
  for (unsigned bits : {2u, 3u, 4u}) {
    for (size_t index : {2, 3, 4}) {
      EncodedMatrix encoded = random_matrix(bits, 5, 33, bits);
      EncodedMatrix::Component& zeroed = encoded.components[index];
      const uint16_t level_zero = int8_to_prime_index(0);
      for (size_t i = 0; i < zeroed.data.size(); ++i)
        zeroed.data[i] = index == 4 ? std::bit_cast<std::array<std::byte, 2>>(level_zero)[i % 2] : std::byte{0};
      const Matrix matrix = open_encoded(encoded);
      for (uint64_t row = 0; row < 5; ++row) EXPECT_EQ(decoded_row(matrix, row), std::vector<float>(33, 0.0f));
    }
  }
}

TEST(Trellis, WeightsAreExactInAnyOrderOfTheFactors) {
  for (unsigned bits : {2u, 3u, 4u}) {
    for (int exponent : {-100, -99, -20, 0, 99, 100}) {
      EncodedMatrix encoded = random_matrix(bits, 1, 320, bits);
      const float scale = std::ldexp(exponent == 100 ? 1.0f : 1.9921875f, exponent);
      const uint16_t stored = float_to_bf16(scale);
      std::memcpy(encoded.components[2].data.data(), &stored, 2);
      const Matrix matrix = open_encoded(encoded);
      const TrellisView& w = trellis_view(matrix);
      const std::vector<float> row = decoded_row(matrix, 0);
      for (uint64_t c = 0; c < 320; ++c) {
        ASSERT_TRUE(row[c] == 0 || std::isnormal(row[c]));
        // The quotient by the scale is an integer product of a step and a level: nothing was rounded.
        const double product = double{row[c]} / double{scale} * 32768;
        ASSERT_EQ(product, std::round(product));
        const unsigned step = w.steps[trellis_step_index(w.block_scales + c / 32 * 8, 0)];
        ASSERT_TRUE(step == 0 ? product == 0 : std::fmod(product, step) == 0);
      }
    }
  }
}

TEST(Trellis, MissingPartsAreNamed) {
  const EncodedMatrix good = random_matrix(3, 20, 40, 1);
  for (size_t i = 0; i < good.components.size(); ++i) {
    EncodedMatrix bad = good;
    bad.components.erase(bad.components.begin() + static_cast<ptrdiff_t>(i));
    EXPECT_THAT(refusal(bad), HasSubstr("matrix." + good.components[i].suffix + " is missing"));
  }
}

TEST(Trellis, PartsOfAnotherShapeOrTypeAreRefusedWithBoth) {
  for (unsigned bits : {2u, 3u, 4u}) {
    const EncodedMatrix good = random_matrix(bits, 20, 40, 1);
    for (size_t i = 0; i < good.components.size(); ++i) {
      const std::string name = "matrix." + good.components[i].suffix;
      for (size_t d = 0; d < good.components[i].shape.size(); ++d) {
        for (uint64_t wrong : {good.components[i].shape[d] + 1, good.components[i].shape[d] - 1, uint64_t{1} << 62}) {
          EncodedMatrix bad = good;
          bad.components[i].shape[d] = wrong;
          EXPECT_THAT(refusal(bad), HasSubstr(name + ": is "));
          EXPECT_THAT(refusal(bad), HasSubstr(shape_string(good.components[i].shape)));
        }
      }
      EncodedMatrix bad = good;
      bad.components[i].shape.push_back(1);
      EXPECT_THAT(refusal(bad), HasSubstr(name + ": is "));
      bad = good;
      bad.components[i].dtype = DType::kI64;
      EXPECT_THAT(refusal(bad), HasSubstr(name + ": is I64"));
      bad = good;
      bad.components[i].data.pop_back();
      EXPECT_THAT(refusal(bad), HasSubstr(name + ": has "));
    }
  }
}

TEST(Trellis, PartsThatDoNotBelongOrComeTwiceAreRefused) {
  EncodedMatrix bad = random_matrix(3, 20, 40, 1);
  bad.components.push_back(part("residual", DType::kU8, {1}, std::vector<uint8_t>{0}));
  EXPECT_THAT(refusal(bad), HasSubstr("has 6 parts"));
  bad.components.back() = bad.components.front();
  EXPECT_THAT(refusal(bad), HasSubstr("has 6 parts"));
}

TEST(Trellis, RowScalesOutsideTheExactRangeAreRefusedWithTheirRow) {
  for (uint16_t bad : std::initializer_list<uint16_t>{0x7fc0, 0x7f80, 0xff80, 0xbf80, 0x8001, 0x0001, 0x007f, 0x0080,
                                                      0x0d7f /* below 2^-100 */, 0x7181 /* above 2^100 */}) {
    EncodedMatrix encoded = random_matrix(2, 20, 40, 1);
    std::memcpy(encoded.components[2].data.data() + 2 * 17, &bad, 2);
    EXPECT_THAT(refusal(encoded), HasSubstr("matrix.row_scales: row 17 has")) << std::hex << bad;
  }
  for (uint16_t good : std::initializer_list<uint16_t>{0x0000, 0x8000, 0x0d80 /* 2^-100 */, 0x7180 /* 2^100 */}) {
    EncodedMatrix encoded = random_matrix(2, 20, 40, 1);
    std::memcpy(encoded.components[2].data.data() + 2 * 17, &good, 2);
    EXPECT_EQ(refusal(encoded), "accepted") << std::hex << good;
  }
}

TEST(Trellis, PrimeIndicesPastTheTableAreRefused) {
  for (unsigned bits : {2u, 3u, 4u}) {
    for (uint16_t bad : std::initializer_list<uint16_t>{10000, 65535}) {
      EncodedMatrix encoded = random_matrix(bits, 20, 40, 1);
      std::memcpy(encoded.components[4].data.data() + 2 * 3, &bad, 2);
      EXPECT_THAT(refusal(encoded), HasSubstr("matrix.codebook: entry 3 is prime index " + std::to_string(bad)));
    }
  }
}

TEST(Trellis, UnalignedCodesAndRowScalesAreRefusedRatherThanCopied) {
  const EncodedMatrix good = random_matrix(3, 20, 40, 1);
  for (size_t shifted = 0; shifted < good.components.size(); ++shifted) {
    std::vector<TensorView> views;
    std::vector<std::byte> storage(good.components[shifted].data.size() + 1);
    std::memcpy(storage.data() + 1, good.components[shifted].data.data(), good.components[shifted].data.size());
    for (const auto& component : good.components)
      views.push_back({component.suffix, component.dtype, component.shape, component.data});
    views[shifted].data = std::span(storage).subspan(1);
    if (shifted == 0 || shifted == 2) {
      EXPECT_THROW(kTrellis3Codec.open("odd", 20, 40, views), Error);
    } else {
      EXPECT_EQ(decoded_row(kTrellis3Codec.open("odd", 20, 40, views), 19), decoded_row(open_encoded(good), 19));
    }
  }
}

TEST(Trellis, ResidualsAreAddedWithOneRounding) {
  for (unsigned bits : {2u, 3u, 4u}) {
    const EncodedMatrix plain = random_matrix(bits, 3, 700, bits);
    EncodedMatrix encoded = plain;
    const std::vector<mdcsr::Entry> entries = {{0, 0, 5}, {0, 31, -127}, {0, 699, 127}, {2, 511, 1}, {2, 512, 0}};
    const std::vector<float> scales = {0.1f, 0.0f, 0x1.234568p-7f};
    add_residual(encoded, entries, scales);
    for (uint64_t row = 0; row < 3; ++row) {
      std::vector<float> expected = decoded_row(open_encoded(plain), row);
      for (const mdcsr::Entry& entry : entries) {
        if (entry.row != row) continue;
        // The product first becomes a float, then the sum does.
        const float residual = static_cast<float>(double{scales[row]} * entry.value);
        expected[entry.column] = static_cast<float>(double{expected[entry.column]} + double{residual});
      }
      EXPECT_EQ(decoded_row(open_encoded(encoded), row), expected);
    }
  }
}

TEST(Trellis, AResidualWithoutEntriesKeepsEveryBit) {
  EncodedMatrix plain = random_matrix(3, 5, 40, 9);
  for (std::byte& byte : plain.components[3].data) byte = std::byte{0};  // weights of both zeros
  EncodedMatrix encoded = plain;
  add_residual(encoded, {}, std::vector<float>(5));
  for (uint64_t row = 0; row < 5; ++row) {
    const auto before = decoded_row(open_encoded(plain), row), after = decoded_row(open_encoded(encoded), row);
    EXPECT_EQ(std::memcmp(before.data(), after.data(), 40 * sizeof(float)), 0);
  }
}

TEST(Trellis, TheLargestWeightAndResidualAddUpToAFiniteOne) {
  EncodedMatrix encoded = random_matrix(4, 1, 32, 1);
  const uint16_t scale = 0x7180;  // 2^100
  std::memcpy(encoded.components[2].data.data(), &scale, 2);
  std::vector<mdcsr::Entry> entries;
  for (uint32_t c = 0; c < 32; ++c) entries.push_back({0, c, static_cast<int8_t>(c % 2 ? 127 : -127)});
  add_residual(encoded, entries, {kMdcsrMaxScale});
  for (float weight : decoded_row(open_encoded(encoded), 0)) EXPECT_TRUE(std::isfinite(weight));
}

TEST(Trellis, AResidualIsThereWithAllItsPartsOrNotAtAll) {
  EncodedMatrix good = random_matrix(3, 20, 40, 1);
  add_residual(good, {{0, 3, 1}, {19, 39, -1}}, std::vector<float>(20, 1.0f));
  ASSERT_EQ(refusal(good), "accepted");
  for (size_t i = 5; i < 9; ++i) {
    const std::string name = "matrix." + good.components[i].suffix;
    EncodedMatrix bad = good;
    bad.components.erase(bad.components.begin() + static_cast<ptrdiff_t>(i));
    EXPECT_THAT(refusal(bad), HasSubstr(name + " is missing"));
    bad = good;
    bad.components[i].dtype = DType::kI64;
    EXPECT_THAT(refusal(bad), HasSubstr(name + ": is I64"));
    bad = good;
    bad.components[i].data.pop_back();
    EXPECT_THAT(refusal(bad), HasSubstr(name + ": has "));
    bad = random_matrix(3, 20, 40, 1);
    bad.components.push_back(good.components[i]);
    EXPECT_THAT(refusal(bad), HasSubstr("is missing"));
    bad = good;
    bad.components.push_back(good.components[i]);
    EXPECT_THAT(refusal(bad), HasSubstr("has 10 parts, trellis3 with a residual has 9"));
  }
  good.components.push_back(part("residual_prime_indices", DType::kU16, {2}, std::vector<uint16_t>{0, 0}));
  EXPECT_THAT(refusal(good), HasSubstr("has 10 parts"));
}

TEST(Trellis, AResidualThatBreaksARuleOfMdcsrIsRefusedByName) {
  const auto broken = [](size_t part, size_t byte, uint8_t value) {
    EncodedMatrix encoded = random_matrix(3, 2, 40, 1);
    add_residual(encoded, {{0, 3, 1}, {0, 39, -1}}, {1.0f, 1.0f});
    encoded.components[part].data[byte] = std::byte{value};
    return refusal(encoded);
  };
  EXPECT_THAT(broken(5, 0, 0x80), HasSubstr("matrix.residual_values: entry 0 (row 0) is -128"));
  EXPECT_THAT(broken(6, 1, 37), HasSubstr("matrix.residual_delta_indices: entry 1 takes row 0 to column 40"));
  EXPECT_THAT(broken(6, 1, 0), HasSubstr("matrix.residual_delta_indices: entry 1 gives column 3 of row 0 twice"));
  EXPECT_THAT(broken(7, 0, 1), HasSubstr("matrix.residual_row_pointers: starts with 1"));
  EXPECT_THAT(broken(7, 4, 3), HasSubstr("matrix.residual_row_pointers: falls from 3 to 2"));
  EXPECT_THAT(broken(7, 8, 1), HasSubstr("matrix.residual_row_pointers: falls from 2 to 1"));
  EXPECT_THAT(broken(8, 7, 0x7f), HasSubstr("matrix.residual_scales: row 1 has the scale"));
}

class TrellisGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(TrellisGolden, FileOfTheIndependentPackerDecodesBitExactly) {
  const Codec& codec = *kTrellisCodecs[GetParam()[7] - '2'];
  const auto file = SafetensorsFile::open(UPG_SOURCE_DIR "/tests/data/codec/" + GetParam() + "_v2.safetensors");
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
  for (uint64_t row = 0; row < matrix.rows; ++row) {
    const std::vector<float> decoded = decoded_row(matrix, row);
    for (uint64_t col = 0; col < matrix.cols; ++col) {
      uint32_t bits;
      std::memcpy(&bits, expected->data.data() + 4 * (row * matrix.cols + col), 4);
      ASSERT_EQ(std::bit_cast<uint32_t>(decoded[col]), bits) << "row " << row << ", column " << col;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Files, TrellisGolden,
                         ::testing::Values("trellis2", "trellis3", "trellis4", "trellis2_residual", "trellis3_residual",
                                           "trellis4_residual"),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace upg
