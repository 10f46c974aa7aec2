// Every family compresses with calibration and runs; experts are calibrated on the tokens that are sent to them.
#include <set>

#include "model/test_util.h"
#include "upg/compress.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

class Families : public TemporaryFolderTest {
 protected:
  // A checkpoint that has a tokenizer of the letters and the space, and a text of those.
  void add_tokenizer(const std::string& dir) {
    nlohmann::json vocabulary = {{"\u0120", 0}};
    for (char c = 'a'; c <= 'z'; ++c) vocabulary[std::string(1, c)] = c - 'a' + 1;
    const nlohmann::json tokenizer = {
        {"version", "1.0"},
        {"added_tokens", nlohmann::json::array()},
        {"normalizer", nullptr},
        {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
        {"post_processor", nullptr},
        {"decoder", {{"type", "ByteLevel"}}},
        {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", nlohmann::json::array()}}}};
    write_file(dir + "/tokenizer.json", tokenizer.dump());
    std::string text;
    for (uint32_t i = 0, state = 1; i < 6000; ++i) {
      state = state * 1664525 + 1013904223;
      text += state >> 24 < 40 ? ' ' : static_cast<char>('a' + (state >> 16) % 26);
    }
    write_file(path("text.txt"), text);
  }
  CompressReport run(const std::string& dir, double bits) {
    CompressOptions o;
    o.threads = 2;
    o.calibrate = path("text.txt");
    o.calibration_tokens = 512;
    o.bits = bits;
    return compress(dir, path("out.upg"), o);
  }
};

// One golden of each architecture.
std::vector<std::string> one_of_each() {
  std::set<std::string> seen;
  std::vector<std::string> names;
  for (const std::string& name : golden_names())
    if (seen.insert(ConfigReader(read_file(golden_model(name) + "/config.json"), name).architecture()).second)
      names.push_back(name);
  return names;
}

class EachFamily : public Families, public ::testing::WithParamInterface<std::string> {};

TEST_P(EachFamily, CompressesWithCalibrationAndRuns) {
  const std::string dir = EditableCheckpoint(golden_model(GetParam())).write(path("model"));
  add_tokenizer(dir);
  const Golden golden(golden_model(GetParam()));
  const uint64_t capacity = golden.ids.size();
  const std::vector<float> original = Runner(dir, 1, "f16", capacity).feed_whole(golden.ids);
  double before = INFINITY;
  for (double bits : {6.5, 9.0}) {  // rows this short carry two bytes of scale each
    const ModelReport report = run(dir, bits).model;
    verify(path("out.upg"));
    EXPECT_LE(report.bits_per_weight, bits);
    ASSERT_TRUE(report.measured_loss.has_value());
    EXPECT_LT(*report.measured_loss, before) << bits;
    before = *report.measured_loss;
    const std::vector<float> logits = Runner(path("out.upg"), 1, "f16", capacity).feed_whole(golden.ids);
    double dot = 0, a = 0, b = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      dot += double{logits[i]} * original[i];
      a += double{logits[i]} * logits[i];
      b += double{original[i]} * original[i];
    }
    EXPECT_GT(dot / std::sqrt(a * b), bits < 7 ? 0.5 : 0.95) << bits;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, EachFamily, ::testing::ValuesIn(one_of_each()),
                         [](const auto& test) { return test.param; });

TEST_F(Families, ExpertsThatNoTokenIsSentToAreReportedAndRoundedWithoutText) {
  EditableCheckpoint checkpoint(golden_model("deepseek_v3_bf16"));
  const std::string moe = "model.layers.1.mlp.";
  checkpoint.at(moe + "gate.e_score_correction_bias").set(3, -1e6f);
  const std::string dir = checkpoint.write(path("model"));
  add_tokenizer(dir);
  const ModelReport report = run(dir, 7).model;
  verify(path("out.upg"));
  std::set<std::string> expected;
  for (const char* name : {"gate_proj", "up_proj", "down_proj"}) expected.insert(moe + "experts.3." + name + ".weight");
  EXPECT_EQ(std::set<std::string>(report.uncalibrated.begin(), report.uncalibrated.end()), expected);
  for (const TensorReport& t : report.tensors)
    EXPECT_TRUE(!expected.contains(t.name) || *t.relative_error < 0.4) << t.name;
}

TEST_F(Families, LayersForFurtherTokensAreLeftOut) {
  EditableCheckpoint checkpoint(golden_model("deepseek_v3_bf16"));
  const auto layers = checkpoint.config["num_hidden_layers"].get<int>();
  checkpoint.config["num_nextn_predict_layers"] = 1;
  checkpoint.tensors.push_back(
      {"model.layers." + std::to_string(layers) + ".eh_proj.weight", DType::kBF16, {2, 2}, std::vector<std::byte>(8)});
  const std::string dir = checkpoint.write(path("model"));
  add_tokenizer(dir);
  for (const TensorReport& t : run(dir, 7).model.tensors) EXPECT_EQ(t.name.find("eh_proj"), std::string::npos);
  const Golden golden(golden_model("deepseek_v3_bf16"));
  EXPECT_EQ(Runner(dir).greedy(golden.ids, golden.greedy.size()), golden.greedy);
}

}  // namespace
}  // namespace upg
