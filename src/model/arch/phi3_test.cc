// Phi-3: the demo model against transformers, and what is refused. Random checkpoints are in golden_test.cc.
#include "model/test_util.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

// Tolerances are shares of the largest |logit|. Keys and values are rounded to f16, each by 2^-11 of itself at most.
// Float rounding elsewhere is nothing beside that: with a float32 cache the difference is below 1e-6.
constexpr float kF16Cache = 0x1p-10f;
constexpr float kF32Cache = 2e-6f;
// Agreement to float32's own precision needs a cache that does not round.
bool has_f32_cache() {
  for (const KvType& type : kv_types())
    if (type.id == "f32") return true;
  return false;
}

TEST(Phi3Window, OnlyTheWindowCounts) {
  const std::string dir = golden_model("window_bf16");
  const Golden golden(dir);
  EditableCheckpoint open(dir);
  open.config["sliding_window"] = nullptr;
  const auto folder = std::filesystem::temp_directory_path() / fmt::format("upg_phi3_window_{}", ::getpid());
  open.write(folder.string());
  const std::vector<float> logits = Runner(folder.string()).feed_whole(golden.ids);
  std::filesystem::remove_all(folder);
  const uint64_t vocab = logits.size() / golden.ids.size(), inside = 7 * vocab;
  const std::vector<float> early(logits.begin(), logits.begin() + static_cast<ptrdiff_t>(inside));
  const std::vector<float> golden_early(golden.logits.begin(), golden.logits.begin() + static_cast<ptrdiff_t>(inside));
  EXPECT_LE(largest_difference(early, golden_early), kF16Cache * largest_of(golden.logits));
  EXPECT_GT(largest_difference(logits, golden.logits), 0.1f) << "the golden does not reach past its window";
}

class Phi3Demo : public ::testing::Test {
 protected:
  Phi3Demo()
      : prompts_(nlohmann::json::parse(read_file(source_path("tests/data/demo/reference.json")))),
        logits_(SafetensorsFile::open(source_path("tests/data/demo/reference_logits.safetensors"))) {}
  void expect_all_close(Runner& runner, const std::function<float(const std::vector<float>&)>& tolerance) {
    ASSERT_EQ(prompts_.size(), 5u);
    for (size_t i = 0; i < prompts_.size(); ++i) {
      const auto ids = prompts_[i]["ids"].get<std::vector<int32_t>>();
      const std::vector<float> expected = floats_of(*logits_.find("logits." + std::to_string(i)));
      EXPECT_LE(largest_difference(runner.feed_whole(ids), expected), tolerance(expected)) << "prompt " << i;
      EXPECT_LE(largest_difference(runner.feed_pieces(ids, {}), expected), tolerance(expected)) << "prompt " << i;
    }
  }
  nlohmann::json prompts_;
  SafetensorsFile logits_;
};

TEST_F(Phi3Demo, LogitsAgreeWithTransformersAsFarAsTheF16CacheAllows) {
  Runner runner(demo_model(), 2, "f16", 128);
  expect_all_close(runner, [](const std::vector<float>& expected) { return kF16Cache * largest_of(expected); });
}

TEST_F(Phi3Demo, LogitsAgreeWithinTwoThousandthsWithAFloat32Cache) {
  if (!has_f32_cache()) GTEST_SKIP() << "this build has no f32 cache";
  Runner runner(demo_model(), 2, "f32", 128);
  expect_all_close(runner, [](const std::vector<float>&) { return 2e-3f; });
}

TEST_F(Phi3Demo, GreedyContinuationsAreThoseOfTransformers) {
  Runner runner(demo_model(), 2, "f16", 128);
  for (const auto& prompt : prompts_) {
    const auto expected = prompt["greedy"].get<std::vector<int32_t>>();
    EXPECT_EQ(runner.greedy(prompt["ids"].get<std::vector<int32_t>>(), expected.size()), expected);
  }
}

TEST_F(Phi3Demo, ThreadsDoNotChangeABit) {
  const auto ids = prompts_[4]["ids"].get<std::vector<int32_t>>();
  Runner one(demo_model(), 1);
  const std::vector<float> whole = one.feed_whole(ids), steps = one.feed_pieces(ids, {30});
  for (unsigned threads : {2u, 3u}) {
    Runner several(demo_model(), threads);
    EXPECT_EQ(several.feed_whole(ids), whole) << threads;
    EXPECT_EQ(several.feed_pieces(ids, {30}), steps) << threads;
  }
}

class Phi3Refusal : public TemporaryFolderTest {
 protected:
  // The message on loading the checkpoint after `edit`.
  std::string refusal(const std::function<void(EditableCheckpoint&)>& edit,
                      ErrorCode expected = ErrorCode::kInvalidFile) {
    EditableCheckpoint checkpoint(golden_model("one_kv_head_bf16"));
    edit(checkpoint);
    const std::string dir = checkpoint.write(path("model"));
    ErrorCode code{};
    const auto message = error_of(
        [&] {
          Weights weights(dir);
          load_model(weights);
        },
        &code);
    std::filesystem::remove_all(dir);
    if (!message) return "accepted";
    EXPECT_EQ(code, expected) << *message;
    EXPECT_THAT(*message, HasSubstr(dir));
    return *message;
  }
  std::string config_refusal(const std::string& key, const nlohmann::json& value,
                             ErrorCode expected = ErrorCode::kInvalidFile) {
    return refusal([&](EditableCheckpoint& c) { c.config[key] = value; }, expected);
  }
};

TEST_F(Phi3Refusal, NothingIsRefusedUnchanged) {
  EXPECT_EQ(refusal([](EditableCheckpoint&) {}), "accepted");
}

TEST_F(Phi3Refusal, AnUnknownArchitectureIsNamedWithTheKnownOnes) {
  const std::string message = config_refusal("architectures", {"LlamaForSomethingElse"}, ErrorCode::kUnsupported);
  EXPECT_THAT(message, HasSubstr("LlamaForSomethingElse"));
  EXPECT_THAT(message, HasSubstr("Phi3ForCausalLM"));
}

TEST_F(Phi3Refusal, ArchitecturesMustBeOneName) {
  for (const nlohmann::json& value : {nlohmann::json(), nlohmann::json::array(), nlohmann::json("Phi3ForCausalLM"),
                                      nlohmann::json({"A", "B"}), nlohmann::json::array({1})})
    EXPECT_THAT(config_refusal("architectures", value), HasSubstr("architectures"));
}

TEST_F(Phi3Refusal, OptionsThatAreNotDoneAreNamed) {
  const auto unsupported = ErrorCode::kUnsupported;
  EXPECT_THAT(config_refusal("rope_parameters", {{"rope_type", "spiral"}}, unsupported),
              HasSubstr("rope_type is \"spiral\""));
  EXPECT_THAT(config_refusal("hidden_act", "gelu", unsupported), HasSubstr("hidden_act is \"gelu\""));
  EXPECT_THAT(config_refusal("attention_bias", true, unsupported), HasSubstr("attention_bias is true"));
  EXPECT_THAT(config_refusal("num_key_value_heads", 2, unsupported), HasSubstr("num_key_value_heads is 2"));
  EXPECT_THAT(config_refusal("num_attention_heads", 37, unsupported), HasSubstr("num_attention_heads is 37"));
}

TEST_F(Phi3Refusal, WrongFieldsAreNamedWithTheirValue) {
  EXPECT_THAT(config_refusal("hidden_size", "36"), HasSubstr("hidden_size is \"36\""));
  EXPECT_THAT(config_refusal("hidden_size", -36), HasSubstr("hidden_size is -36"));
  EXPECT_THAT(config_refusal("hidden_size", 0), HasSubstr("hidden_size is 0"));
  EXPECT_THAT(config_refusal("num_hidden_layers", 1e18), HasSubstr("num_hidden_layers"));
  EXPECT_THAT(config_refusal("num_hidden_layers", nullptr), HasSubstr("\"num_hidden_layers\" is missing"));
  EXPECT_THAT(config_refusal("rms_norm_eps", -1), HasSubstr("rms_norm_eps is -1"));
  EXPECT_THAT(config_refusal("tie_word_embeddings", 1), HasSubstr("tie_word_embeddings is 1"));
  EXPECT_THAT(config_refusal("rope_parameters", 3), HasSubstr("rope_parameters is 3"));
  EXPECT_THAT(config_refusal("rope_parameters", {{"rope_theta", "x"}}), HasSubstr("rope_theta is \"x\""));
  EXPECT_THAT(config_refusal("sliding_window", -1), HasSubstr("sliding_window is -1"));
}

TEST_F(Phi3Refusal, AMissingTensorIsNamed) {
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  EXPECT_THAT(refusal([&](EditableCheckpoint& c) { c.erase(name); }), HasSubstr(name + " is missing"));
  EXPECT_THAT(config_refusal("num_hidden_layers", 3), HasSubstr("model.layers.2.input_layernorm.weight is missing"));
}

TEST_F(Phi3Refusal, AnExtraTensorIsNamed) {
  EXPECT_THAT(refusal([](EditableCheckpoint& c) {
                c.tensors.push_back({"model.layers.0.self_attn.qkv_proj.bias", DType::kF32, {1}, {4, std::byte{0}}});
              }),
              HasSubstr("self_attn.qkv_proj.bias is not part"));
  EXPECT_THAT(config_refusal("num_hidden_layers", 1), HasSubstr("tensor model.layers.1."));
}

TEST_F(Phi3Refusal, AMisshapenTensorIsNamedWithBothShapes) {
  const std::string name = "model.layers.0.self_attn.o_proj.weight";
  const std::string turned = refusal([&](EditableCheckpoint& c) { c.at(name).shape = {18, 72}; });
  EXPECT_THAT(turned, HasSubstr(name + " has shape [18, 72]"));
  EXPECT_THAT(turned, HasSubstr("[36, 36]"));
  EXPECT_THAT(refusal([](EditableCheckpoint& c) {
                c.at("model.norm.weight").shape = {6, 6};
              }),
              HasSubstr("model.norm.weight has shape [6, 6]"));
  EXPECT_THAT(config_refusal("head_dim", 14), HasSubstr("qkv_proj.weight has shape [60, 36]"));
  EXPECT_THAT(config_refusal("vocab_size", 102), HasSubstr("[102, 36]"));
}

TEST_F(Phi3Refusal, AnOddRotaryPartIsRefused) {
  EXPECT_THAT(refusal([](EditableCheckpoint& c) { c.config["rope_parameters"]["partial_rotary_factor"] = 0.25; },
                      ErrorCode::kUnsupported),
              HasSubstr("must be even"));
}

TEST_F(Phi3Refusal, ANormThatIsNotFiniteIsRefusedWithItsIndex) {
  for (float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    EXPECT_THAT(
        refusal([&](EditableCheckpoint& c) { c.at("model.layers.1.post_attention_layernorm.weight").set(35, value); }),
        ::testing::AllOf(HasSubstr("model.layers.1.post_attention_layernorm.weight"), HasSubstr("index 35")));
}

TEST_F(Phi3Refusal, IntegerWeightsAreRefused) {
  EXPECT_THAT(refusal(
                  [](EditableCheckpoint& c) {
                    OwnedTensor& t = c.at("lm_head.weight");
                    t.dtype = DType::kI16;
                  },
                  ErrorCode::kUnsupported),
              HasSubstr("lm_head.weight: codec \"I16\" is not known"));
}

TEST_F(Phi3Refusal, WeightsThatAreNotFiniteRunWithoutHarm) {
  for (const char* kv : {"f16", "int8"}) {
    EditableCheckpoint checkpoint(golden_model("one_kv_head_bf16"));
    checkpoint.at("model.layers.0.self_attn.qkv_proj.weight").fill(std::numeric_limits<float>::infinity());
    checkpoint.at("model.layers.1.self_attn.qkv_proj.weight").fill(std::numeric_limits<float>::quiet_NaN());
    const std::string dir = checkpoint.write(path(kv));
    EXPECT_EQ(Runner(dir, 1, kv).feed(std::vector<int32_t>{1, 2, 3}).size(), 3 * 101u);
  }
}

}  // namespace
}  // namespace upg
