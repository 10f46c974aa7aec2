// Every model of tests/data/models against what transformers, or an independent NumPy forward, computes for it: small
// random checkpoints of each family's shapes. scripts/make_model_goldens.py makes them.
#include "model/test_util.h"

namespace upg {
namespace {

using namespace testing_util;

// Tolerances are shares of the largest |logit|. Float rounding alone is below 1e-6 of it.
constexpr float kF32Cache = 4e-6f;
// Keys and values are rounded to f16, each by 2^-11 of itself at most; caps and routers pass more of it on.
constexpr float kF16Cache = 0x1p-9f;
// int8 keeps a vector's elements to 1/254 of its largest, which is about 2.5 times a typical one.
constexpr float kInt8Cache = 0.05f;
// Sums in another order, after which a few elements may round to the other neighbour in f16.
constexpr float kOtherOrder = 4e-4f;

class Goldens : public ::testing::TestWithParam<std::string> {
 protected:
  Goldens()
      : dir_(golden_model(GetParam())),
        golden_(dir_),
        capacity_(golden_.ids.size() + golden_.greedy.size()),
        largest_(largest_of(golden_.logits)) {}
  Runner runner(const char* kv = "f32", unsigned threads = 1) { return Runner(dir_, threads, kv, capacity_); }
  void expect_close(const std::vector<float>& logits, float tolerance) {
    EXPECT_LE(largest_difference(logits, golden_.logits), tolerance * largest_);
  }
  std::string dir_;
  Golden golden_;
  uint64_t capacity_;  // no more than is needed: some models turn otherwise in long contexts
  float largest_;
};

TEST_P(Goldens, LogitsAgreeToFloat32PrecisionInOnePassAndTokenByToken) {
  expect_close(runner().feed_whole(golden_.ids), kF32Cache);
  expect_close(runner().feed_pieces(golden_.ids, {}), kF32Cache);
}

TEST_P(Goldens, AnF16CacheIsAsCloseAsItsRounding) { expect_close(runner("f16").feed_whole(golden_.ids), kF16Cache); }

TEST_P(Goldens, AnInt8CacheIsClose) {
  // Where a router stands between two experts, a rounded key may send a token to the other.
  if (ConfigReader(read_file(dir_ + "/config.json"), dir_).has("num_experts_per_tok")) return;
  expect_close(runner("int8").feed_whole(golden_.ids), kInt8Cache);
}

TEST_P(Goldens, TheGreedyContinuationIsTheSame) {
  EXPECT_EQ(runner().greedy(golden_.ids, golden_.greedy.size()), golden_.greedy);
  EXPECT_EQ(runner("f16").greedy(golden_.ids, golden_.greedy.size()), golden_.greedy);
}

TEST_P(Goldens, ChunksAgreeWithTheWhole) {
  Runner r = runner("f16");
  const std::vector<float> whole = r.feed_whole(golden_.ids);
  EXPECT_LE(largest_difference(r.feed_pieces(golden_.ids, {3, 4, 1, 64}), whole), kOtherOrder * largest_);
  EXPECT_LE(largest_difference(r.feed_pieces(golden_.ids, {}), whole), kOtherOrder * largest_);
}

TEST_P(Goldens, ThreadsDoNotChangeABit) {
  Runner one = runner("f16");
  const std::vector<float> whole = one.feed_whole(golden_.ids), steps = one.feed_pieces(golden_.ids, {});
  for (unsigned threads : {2u, 3u}) {
    Runner several = runner("f16", threads);
    EXPECT_EQ(several.feed_whole(golden_.ids), whole) << threads;
    EXPECT_EQ(several.feed_pieces(golden_.ids, {}), steps) << threads;
  }
}

TEST_P(Goldens, ForgettingPositionsGivesTheSameLogitsAgain) {
  Runner r = runner("f16");
  const std::vector<float> first = r.feed_whole(golden_.ids);
  EXPECT_EQ(r.cache().length(), golden_.ids.size());
  EXPECT_EQ(r.feed_whole(golden_.ids), first);
}

INSTANTIATE_TEST_SUITE_P(Models, Goldens, ::testing::ValuesIn(golden_names()),
                         [](const auto& test) { return test.param; });

TEST(Goldens, ThereIsOneOfEachArchitecture) {
  std::set<std::string> seen;
  for (const std::string& name : golden_names())
    seen.insert(ConfigReader(read_file(golden_model(name) + "/config.json"), name).architecture());
  for (const Architecture& architecture : architectures())
    EXPECT_TRUE(seen.contains(std::string(architecture.name))) << architecture.name;
}

}  // namespace
}  // namespace upg
