// Every family compresses with calibration and runs; experts are calibrated on the tokens that are sent to them.
#include <random>
#include <regex>
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

// A random checkpoint of the golden's configuration with all widths times `factor`: a model as small as a golden is
// mostly row scales. Shapes are those that loading it asks for.
EditableCheckpoint widened(const std::string& golden, uint64_t factor, const std::string& dir) {
  EditableCheckpoint checkpoint(golden_model(golden));
  for (const char* field : {"hidden_size", "intermediate_size", "moe_intermediate_size", "num_attention_heads",
                            "num_key_value_heads", "shared_expert_intermediate_size", "kv_lora_rank", "q_lora_rank"})
    if (checkpoint.config.contains(field) && checkpoint.config[field].is_number())
      checkpoint.config[field] = checkpoint.config[field].get<uint64_t>() * factor;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  static const std::regex asked("tensor (\\S+) has shape .* asks for \\[([0-9]+)(?:, ([0-9]+))?\\]");
  for (;;) {
    const auto message = error_of([&] {
      Weights weights(checkpoint.write(dir));
      load_model(weights);
    });
    std::filesystem::remove_all(dir);
    if (!message) return checkpoint;
    std::smatch match;
    if (!std::regex_search(*message, match, asked)) throw std::runtime_error(*message);
    OwnedTensor& tensor = checkpoint.at(match[1]);
    tensor.shape = {std::stoull(match[2])};
    if (match[3].matched) tensor.shape.push_back(std::stoull(match[3]));
    uint64_t elements = 1;
    for (uint64_t dim : tensor.shape) elements *= dim;
    tensor.data.resize(elements * dtype_info(tensor.dtype).bytes);
    const float scale = 1 / std::sqrt(static_cast<float>(tensor.shape.back()));
    for (uint64_t i = 0; i < elements; ++i)
      tensor.set(i, tensor.shape.size() == 1 ? 1 + 0.1f * normal(random) : scale * normal(random));
  }
}

TEST_P(EachFamily, CompressesTenToOneAndRuns) {
  const std::string dir = widened(GetParam(), 5, path("wide")).write(path("wide"));
  CompressOptions o;
  o.threads = 2;
  o.calibrate = "none";
  const ModelReport report = compress(dir, path("out.upg"), o).model;
  EXPECT_GE(report.ratio_fp32, 10.0);
  verify(path("out.upg"));
  const Golden golden(golden_model(GetParam()));
  Runner runner(path("out.upg"), 2, "int8", golden.ids.size() + 8);
  EXPECT_EQ(runner.greedy(golden.ids, 8).size(), 8u);
  for (float x : runner.feed_whole(golden.ids)) ASSERT_TRUE(std::isfinite(x));
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
