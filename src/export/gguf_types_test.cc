// Element types: Q8_0 against the gguf package and its own bounds, and what does not fit.
#include "export/gguf_types.h"

#include "export/test_util.h"

namespace upg {
namespace {

using namespace testing_util;

std::vector<std::byte> encoded(const GgufType& type, const std::vector<float>& values) {
  std::vector<std::byte> out(type.bytes(values.size()));
  EXPECT_EQ(type.encode(values, out.data()), values.size());
  return out;
}

TEST(GgufTypes, Q8BlocksAreThoseOfTheGgufPackage) {
  const SafetensorsFile golden = SafetensorsFile::open(source_path("tests/data/export/gguf_q8_0.safetensors"));
  const auto bytes = encoded(*find_gguf_type("q8_0"), floats_of(*golden.find("values")));
  const auto want = golden.find("blocks")->data;
  EXPECT_EQ(bytes, std::vector<std::byte>(want.begin(), want.end()));
}

TEST(GgufTypes, Q8KeepsEveryValueToHalfAStepOfItsBlock) {
  const GgufType& type = *find_gguf_type("q8_0");
  std::vector<float> values(32 * 40);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] =
        static_cast<float>(static_cast<int>(i * 7919 % 2003) - 1001) * std::ldexp(1.0f, static_cast<int>(i / 32) - 26);
  const auto bytes = encoded(type, values);
  const std::vector<float> read =
      ReadTensor{{}, 8, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}}.floats();
  for (size_t block = 0; block < values.size(); block += 32) {
    float largest = 0;
    for (size_t i = 0; i < 32; ++i) largest = std::max(largest, std::abs(values[block + i]));
    // Half a step, and what rounding the step to F16 changes at its end: 2^-11 of the value, or 2^-25 of a subnormal's.
    const float bound = largest / 127 * 0.5f + std::max(largest * 0x1p-11f, 127 * 0x1p-25f);
    for (size_t i = 0; i < 32; ++i) EXPECT_NEAR(read[block + i], values[block + i], bound * 1.0001f);
  }
}

TEST(GgufTypes, FloatsAreKeptAsTheTypeAllows) {
  const std::vector<float> values = {0, -0.0f, 1.5f, -65504, 0x1p-24f, 3.140625f};
  for (const char* name : {"f16", "f32"}) {
    const GgufType& type = *find_gguf_type(name);
    const auto bytes = encoded(type, values);
    EXPECT_EQ((ReadTensor{{}, type.id, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}}.floats()), values);
  }
}

TEST(GgufTypes, TheFirstValueThatDoesNotFitIsFound) {
  std::vector<float> values(64, 1.0f);
  values[40] = 1e5f;
  std::vector<std::byte> out(64 * 4);
  EXPECT_EQ(find_gguf_type("f16")->encode(values, out.data()), 40u);
  EXPECT_EQ(find_gguf_type("bf16")->encode(values, out.data()), 64u);
  EXPECT_EQ(find_gguf_type("q8_0")->encode(values, out.data()), 64u);
  values[40] = 1e8f;  // its step is above what F16 has
  EXPECT_EQ(find_gguf_type("q8_0")->encode(values, out.data()), 32u);
  EXPECT_EQ(find_gguf_type("q4_0"), nullptr);
}

}  // namespace
}  // namespace upg
