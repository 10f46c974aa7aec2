// Weights handed out by name, from checkpoint directories; UPG files are covered with the compressor.
#include "model/weights.h"

#include "model/test_util.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

TEST(Weights, ACheckpointIsListedWithItsDenseCodecs) {
  const std::pair<const char*, const char*> models[] = {
      {"one_kv_head_bf16", "bf16"}, {"tied_f16", "f16"}, {"wide_heads_f32", "f32"}};
  for (const auto& [name, codec] : models) {
    const Weights weights(golden_model(name));
    EXPECT_FALSE(weights.compressed());
    uint64_t bytes = 0;
    for (const WeightInfo& info : weights.list()) {
      EXPECT_EQ(info.codec, codec);
      EXPECT_FALSE(info.relative_error);
      bytes += info.stored_bytes;
    }
    EXPECT_EQ(weights.file_bytes(), bytes);
    EXPECT_TRUE(weights.has("model.norm.weight"));
    EXPECT_FALSE(weights.has("model.norm"));
  }
}

TEST(Weights, ShapesAreChecked) {
  Weights weights(golden_model("tied_f16"));
  EXPECT_EQ(weights.vector("model.norm.weight", 40).size(), 40u);
  EXPECT_THAT(*error_of([&] { weights.vector("model.norm.weight", 41); }), HasSubstr("[40]"));
  EXPECT_THAT(*error_of([&] { weights.vector("model.embed_tokens.weight", 97 * 40); }), HasSubstr("[97, 40]"));
  EXPECT_THAT(*error_of([&] { weights.matrix("model.embed_tokens.weight", 40, 97); }), HasSubstr("[97, 40]"));
  EXPECT_THAT(*error_of([&] { weights.matrix("nothing", 1, 1); }), HasSubstr("nothing is missing"));
  EXPECT_THAT(*error_of([&] { weights.check_all_used(); }), HasSubstr("is not part of this architecture"));
}

TEST(Weights, APathThatLeadsNowhereIsNamed) {
  ErrorCode code{};
  EXPECT_THAT(*error_of([] { Weights("/nonexistent/model.upg"); }, &code), HasSubstr("/nonexistent/model.upg"));
  EXPECT_EQ(code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace upg
