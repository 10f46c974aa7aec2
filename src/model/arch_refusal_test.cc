// What each architecture refuses, by name, before anything runs: options that are not done, and tensors that are
// missing, extra or of another shape.
#include <regex>

#include "model/test_util.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

class Refusal : public TemporaryFolderTest {
 protected:
  // The message on loading `checkpoint`, "accepted" without one.
  std::string refusal(const EditableCheckpoint& checkpoint) {
    const std::string dir = checkpoint.write(path("model"));
    const auto message = error_of([&] {
      Weights weights(dir);
      load_model(weights);
    });
    std::filesystem::remove_all(dir);
    return message.value_or("accepted");
  }
};

struct Option {
  const char* golden;
  const char* field;  // of config.json, "/" before those inside an object
  nlohmann::json value;
  const char* said;
};

TEST_F(Refusal, OptionsThatAreNotDoneAreNamedWithTheirValue) {
  const Option options[] = {
      {"llama_2_f16", "hidden_act", "gelu", "hidden_act is \"gelu\": only silu is"},
      {"llama_2_f16", "rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}, "rope_scaling: type is \"dynamic\""},
      {"llama_3_1_bf16", "rope_scaling/factor", "8", "factor is \"8\", must be a number"},
      {"llama_3_1_bf16", "rope_scaling/high_freq_factor", 0.5, "must be above low_freq_factor"},
      {"llama_3_1_bf16", "num_key_value_heads", 4, "num_key_value_heads is 4: must divide"},
      {"mistral_window_bf16", "sliding_window", "all", "sliding_window is \"all\""},
      {"qwen2_window_bf16", "layer_types", {"full_attention"}, "layer_types is [\"full_attention\"]: must have 4"},
      {"qwen2_window_bf16", "layer_types", {"a", "b", "c", "d"}, "only sliding_attention and full_attention"},
      {"gemma_bf16", "hidden_act", "relu", "hidden_act is \"relu\""},
      {"gemma_2_bf16", "hidden_activation", "gelu", "hidden_activation is \"gelu\": only gelu_pytorch_tanh"},
      {"gemma_2_bf16", "attention_bias", true, "attention_bias is true: only false"},
      {"gemma_3_bf16", "use_bidirectional_attention", true, "use_bidirectional_attention is true"},
      {"gemma_3_linear_f32", "rope_scaling/rope_type", "yearn", "\"yearn\": supported: default, linear, llama3"},
      {"phi_3_5_long_bf16", "rope_scaling/long_factor", {1.0, 2.0}, "one for each pair of a head"},
      {"phi_3_5_long_bf16", "rope_scaling/short_factor", nullptr, "\"short_factor\" must be an array"},
      {"mixtral_bf16", "num_experts_per_tok", 9, "num_experts_per_tok is 9"},
      {"qwen2_moe_bf16", "shared_expert_intermediate_size", nullptr, "\"shared_expert_intermediate_size\" is missing"},
      {"qwen3_moe_bf16", "num_experts", nullptr, "\"num_experts\" is missing"},
      {"qwen3_moe_mixed_bf16", "mlp_only_layers", "none", "mlp_only_layers must be an array"},
      {"deepseek_v2_bf16", "topk_method", "best", "topk_method is \"best\""},
      {"deepseek_v2_bf16", "norm_topk_prob", true, "norm_topk_prob is true"},
      {"deepseek_v3_bf16", "scoring_func", "relu", "scoring_func is \"relu\""},
      {"deepseek_v3_bf16", "n_group", 5, "n_group is 5: must divide"},
      {"deepseek_v3_bf16", "num_experts_per_tok", 8, "more than topk_group groups have"},
      {"deepseek_v3_bf16", "qk_rope_head_dim", 7, "qk_rope_head_dim is 7: must be even"},
      {"grok_1_bf16", "max_attn_value", -1, "max_attn_value is -1"},
  };
  for (const Option& option : options) {
    EditableCheckpoint checkpoint(golden_model(option.golden));
    const std::string pointer = std::string("/") + option.field;
    checkpoint.config[nlohmann::json::json_pointer(pointer)] = option.value;
    EXPECT_THAT(refusal(checkpoint), HasSubstr(option.said)) << option.golden << " " << option.field;
  }
}

// Each architecture's tensors, one of each kind: what their names are without layer and expert numbers.
TEST_F(Refusal, EveryKindOfTensorIsMissedAndMeasured) {
  std::set<std::string> seen;
  for (const std::string& name : golden_names()) {
    const EditableCheckpoint original(golden_model(name));
    const auto architecture = original.config["architectures"][0].get<std::string>();
    const bool tied = original.config.value("tie_word_embeddings", false);
    for (const OwnedTensor& tensor : original.tensors) {
      if (tied && tensor.name == "lm_head.weight") continue;  // not read
      if (!seen.insert(architecture + std::regex_replace(tensor.name, std::regex("[0-9]+"), "#")).second) continue;
      EditableCheckpoint without = original;
      without.erase(tensor.name);
      EXPECT_THAT(refusal(without), HasSubstr("tensor " + tensor.name + " is missing")) << name;
      EditableCheckpoint flat = original;
      flat.at(tensor.name).shape = {1, 1, tensor.elements()};
      EXPECT_THAT(refusal(flat), HasSubstr("tensor " + tensor.name + " has shape [1, 1, ")) << name;
    }
    EditableCheckpoint more = original;
    more.tensors.push_back({"model.layers.0.extra.weight", DType::kF32, {1}, {4, std::byte{0}}});
    EXPECT_THAT(refusal(more), HasSubstr("model.layers.0.extra.weight is not part")) << name;
  }
}

}  // namespace
}  // namespace upg
