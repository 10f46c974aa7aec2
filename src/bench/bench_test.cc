// Made-up models and what is measured on them; that they run is also a test of the engine on trellis weights.
#include "upg/bench.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "upg/inspect.h"

namespace upg {
namespace {

using ::testing::HasSubstr;

class Bench : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    path() = ::testing::TempDir() + fmt::format("bench-{}.upg", ::getpid());
    write_synthetic_model("tiny", 10, path());
  }
  static void TearDownTestSuite() { std::filesystem::remove(path()); }
  static std::string& path() {
    static std::string path;
    return path;
  }
};

TEST_F(Bench, AMadeUpModelHasTheRatioAskedForAndVerifies) {
  const ModelReport report = inspect(path());
  EXPECT_GE(4.0 * static_cast<double>(report.parameters) / static_cast<double>(report.weight_bytes), 10.0);
  EXPECT_NO_THROW(verify(path()));
}

TEST_F(Bench, UnknownShapesAndImpossibleRatiosAreRefused) {
  const auto refusal = [](std::string_view shape, double ratio) -> std::string {
    try {
      write_synthetic_model(shape, ratio, path() + ".no");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(refusal("phi-5", 10), HasSubstr("phi-4, phi-3-mini, tiny"));
  EXPECT_THAT(refusal("tiny", 100), HasSubstr("ratio 100"));
  EXPECT_THAT(refusal("tiny", -1), HasSubstr("ratio -1"));
  EXPECT_FALSE(std::filesystem::exists(path() + ".no"));
}

TEST_F(Bench, BytesOfATokenAreThoseOfItsMatricesAndOfItsContext) {
  BenchOptions options;
  options.threads = 1;
  options.prompts = {32};
  options.contexts = {16, 100000};
  options.tokens = 2;
  options.rounds = 1;
  const BenchReport report = bench_model(path(), options);
  ASSERT_EQ(report.prompts.size(), 1u);
  EXPECT_GT(report.prompts[0].tokens_per_second, 0);
  ASSERT_EQ(report.generation.size(), 2u);
  uint64_t matrices = 0;
  for (const TensorReport& tensor : inspect(path()).tensors)
    if (tensor.shape.size() == 2 && tensor.name != "model.embed_tokens.weight") matrices += tensor.bytes;
  for (const GenerationSpeed& speed : report.generation) {
    EXPECT_EQ(speed.weight_bytes, matrices);
    EXPECT_EQ(speed.kv_bytes, (speed.context + 1) * 2 * 2 * 2 * 64 * 2)
        << "layers, keys and values, heads, elements, bytes";
    EXPECT_NEAR(speed.bytes_per_second / speed.tokens_per_second,
                static_cast<double>(speed.weight_bytes + speed.kv_bytes), 1);
    EXPECT_GT(speed.fraction, 0);
  }
  EXPECT_EQ(report.generation[1].context, 4093u) << "as many as the model has room for";
  EXPECT_GT(report.read_bandwidth, 0);
}

TEST_F(Bench, StreamsAreCountedTogether) {
  BenchOptions options;
  options.prompts = {};
  options.contexts = {16};
  options.streams = {1, 3};
  options.tokens = 2;
  options.rounds = 1;
  const BenchReport report = bench_model(path(), options);
  ASSERT_EQ(report.streams.size(), 2u);
  for (const StreamsSpeed& s : report.streams) EXPECT_GT(s.tokens_per_second, 0) << s.streams;
  options.streams = {0};
  EXPECT_THROW(bench_model(path(), options), Error);
}

TEST_F(Bench, ProgressCanCancel) {
  BenchOptions options;
  options.progress = [](std::string_view, uint64_t, uint64_t) { return false; };
  EXPECT_THROW(bench_model(path(), options), Error);
}

// What ADR 10 promises, for a whole model.
TEST_F(Bench, TokensTogetherGiveTheBitsOfOneByOne) {
  const auto engine = Engine::open(path(), {2});
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 37; ++i) tokens.push_back((i * 131 + 7) % 512);
  for (const char* kv : {"f16", "int8", "f32"}) {
    Session together(engine, {0, kv}), apart(engine, {0, kv});
    const std::span<const float> last = together.feed(tokens);
    const std::vector<float> expected(last.begin(), last.end());
    std::span<const float> actual;
    for (const int32_t& token : tokens) actual = apart.feed(std::span(&token, 1));
    EXPECT_EQ(std::vector<float>(actual.begin(), actual.end()), expected) << kv;
  }
}

}  // namespace
}  // namespace upg
