// What holds for every codec in the list: its id is found, its bytes are counted, its parts are checked.
#include "codec/codec_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "codec/test_util.h"
#include "upg/error.h"

namespace upg {
namespace {

using ::testing::HasSubstr;

RowSource gaussian(uint32_t seed) {
  return [seed](uint64_t row, std::span<float> out) {
    std::mt19937 random(seed * 7919 + static_cast<uint32_t>(row));
    std::normal_distribution<float> normal;
    for (float& weight : out) weight = normal(random);
  };
}

TEST(CodecTable, EveryCodecIsFoundByItsIdAndIdsAreUnique) {
  std::set<std::string_view> ids;
  for (const Codec* codec : codecs()) {
    EXPECT_EQ(&find_codec(codec->id), codec);
    EXPECT_TRUE(ids.insert(codec->id).second) << codec->id;
    EXPECT_GE(codec->version, 1u);
    EXPECT_FALSE(codec->summary.empty());
    EXPECT_TRUE(codec->since == "2.0" || codec->since == "3.0") << codec->id;
    EXPECT_TRUE(codec->activation == "q8" || codec->activation == "f32") << codec->id;
  }
}

TEST(CodecTable, AnUnknownIdIsRefusedWithTheKnownOnes) {
  try {
    find_codec("zip");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.what(), HasSubstr("\"zip\""));
    for (const Codec* codec : codecs()) EXPECT_THAT(error.what(), HasSubstr(std::string(codec->id)));
  }
}

class EveryCodec : public ::testing::TestWithParam<const Codec*> {};

TEST_P(EveryCodec, StoredBytesIsWhatEncodeStores) {
  const Codec& codec = *GetParam();
  uint32_t seed = 0;
  for (uint64_t rows : {0, 1, 2, 15, 16, 17, 40}) {
    for (uint64_t cols : {0, 1, 31, 32, 33, 64, 250, 257}) {
      for (double density : {0.05, 0.2, 1.0}) {
        const EncodedMatrix encoded = codec.encode(rows, cols, gaussian(++seed), {density, {}});
        const double expected = static_cast<double>(codec.stored_bytes(rows, cols, density));
        // Sparse codecs know their count of entries, but not how many bridges wide gaps will need.
        const double slack = codec.id.starts_with("mdcsr") ? 0.1 * expected + 40 : 0;
        EXPECT_NEAR(static_cast<double>(encoded.bytes()), expected, slack)
            << codec.id << ' ' << rows << " x " << cols << ", density " << density;
        EXPECT_NO_THROW(open_encoded(encoded)) << codec.id << ' ' << rows << " x " << cols;
      }
    }
  }
}

TEST_P(EveryCodec, SizesOfMatricesTooLargeToEncodeAreCountedWithoutWrapping) {
  // 2^17 x 2^17 weights: beyond 32 bits in every unit.
  const double bytes = static_cast<double>(GetParam()->stored_bytes(1 << 17, 1 << 17, 0.1));
  EXPECT_GT(bytes, 0x1p34 / 8);
  EXPECT_LE(bytes, 0x1p34 * 4);
}

TEST_P(EveryCodec, EncodedPartsHaveUniqueNamesAndExactlyTheBytesOfTheirShapes) {
  const EncodedMatrix encoded = GetParam()->encode(17, 33, gaussian(1), {0.3, {}});
  EXPECT_EQ(encoded.codec, GetParam());
  std::set<std::string> names;
  for (const auto& part : encoded.components) {
    EXPECT_TRUE(names.insert(part.suffix).second) << part.suffix;
    uint64_t bytes = dtype_info(part.dtype).bytes;
    for (uint64_t dim : part.shape) bytes *= dim;
    EXPECT_EQ(part.data.size(), bytes) << part.suffix;
  }
}

TEST_P(EveryCodec, DecodedWeightsResembleTheOriginal) {
  const EncodedMatrix encoded = GetParam()->encode(20, 300, gaussian(2), {0.5, {}});
  const Matrix matrix = open_encoded(encoded);
  std::vector<float> original(300), decoded(300);
  double noise = 0, power = 0;
  for (uint64_t row = 0; row < 20; ++row) {
    gaussian(2)(row, original);
    GetParam()->decode_row(matrix, row, decoded.data());
    for (size_t c = 0; c < 300; ++c) {
      noise += std::pow(double{decoded[c]} - double{original[c]}, 2);
      power += std::pow(double{original[c]}, 2);
    }
  }
  EXPECT_LT(std::sqrt(noise / power), 0.4);
}

// Damage that every codec must refuse, whatever its parts are.
TEST_P(EveryCodec, PartsThatAreMissingExtraOrOfAnotherTypeShapeOrSizeAreRefused) {
  const EncodedMatrix good = GetParam()->encode(20, 50, gaussian(3), {0.3, {}});
  const auto refused = [](const EncodedMatrix& bad) {
    try {
      open_encoded(bad);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidFile);
      EXPECT_TRUE(std::string_view(error.what()).starts_with("matrix")) << error.what();
      return true;
    }
    return false;
  };
  ASSERT_FALSE(refused(good));
  for (size_t i = 0; i < good.components.size(); ++i) {
    const std::string& suffix = good.components[i].suffix;
    EncodedMatrix bad = good;
    bad.components.erase(bad.components.begin() + static_cast<ptrdiff_t>(i));
    EXPECT_TRUE(refused(bad)) << "without " << suffix;
    bad = good;
    bad.components.push_back(good.components[i]);
    EXPECT_TRUE(refused(bad)) << "twice " << suffix;
    bad = good;
    bad.components[i].dtype = DType::kI64;
    EXPECT_TRUE(refused(bad)) << "type of " << suffix;
    for (size_t d = 0; d < good.components[i].shape.size(); ++d) {
      const uint64_t right = good.components[i].shape[d];
      for (uint64_t wrong : {right + 1, right - 1, UINT64_MAX}) {
        bad = good;
        bad.components[i].shape[d] = wrong;
        EXPECT_TRUE(refused(bad)) << "shape of " << suffix;
      }
    }
    bad = good;
    bad.components[i].data.pop_back();
    EXPECT_TRUE(refused(bad)) << "size of " << suffix;
    bad.components[i].data.resize(good.components[i].data.size() + 1);
    EXPECT_TRUE(refused(bad)) << "size of " << suffix;
  }
  EncodedMatrix bad = good;
  bad.components.push_back({"surplus", DType::kU8, {1}, std::vector<std::byte>(1)});
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.rows = 21;
  EXPECT_TRUE(refused(bad));
}

INSTANTIATE_TEST_SUITE_P(Codecs, EveryCodec, ::testing::ValuesIn(codecs().begin(), codecs().end()),
                         [](const auto& param) { return std::string(param.param->id); });

}  // namespace
}  // namespace upg
