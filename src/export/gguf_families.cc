#include "export/gguf_families.h"

namespace upg {
namespace {

constexpr GgufFamily kLlama = {
    .name = "llama",
    .interleaved = true,
    .free_heads = true,
    .output_bias = true,
    .mlp_bias = true,
    .rotary_factors = true,
    .long_factors = true,
    .experts = {.any = true, .normalize = true},
};
constexpr GgufFamily kPhi3 = {.name = "phi3", .fused = true, .partial_rotary = true, .long_factors = true};
constexpr GgufFamily kQwen2 = {.name = "qwen2"};
constexpr GgufFamily kQwen3 = {.name = "qwen3", .free_heads = true, .head_norms = true};
constexpr GgufFamily kQwen2Moe = {
    .name = "qwen2moe", .own_head = true, .experts = {.any = true, .shared = true, .shared_gate = true}};
constexpr GgufFamily kQwen3Moe = {
    .name = "qwen3moe", .free_heads = true, .head_norms = true, .experts = {.any = true, .normalize = true}};
constexpr GgufFamily kGemma = {
    .name = "gemma", .activation = "gelu_tanh", .free_heads = true, .root_embedding = true, .tied_only = true};
constexpr GgufFamily kGemma2 = {
    .name = "gemma2",
    .activation = "gelu_tanh",
    .free_heads = true,
    .attention_post_norm = "post_attention_norm",
    .mlp_post_norm = "post_ffw_norm",
    .windows = true,
    .softcap = true,
    .logit_cap = true,
    .needs_logit_cap = true,
    .hidden_scaled_layers = 46,
    .root_embedding = true,
    .tied_only = true,
};
constexpr GgufFamily kGemma3 = {
    .name = "gemma3",
    .activation = "gelu_tanh",
    .free_heads = true,
    .head_norms = true,
    .attention_post_norm = "post_attention_norm",
    .mlp_post_norm = "post_ffw_norm",
    .windows = true,
    .local_rotary = true,
    .logit_cap = true,
    .hidden_scaled_layers = 62,
    .root_embedding = true,
};
constexpr GgufFamily kDeepSeek = {
    .name = "deepseek2",
    .interleaved = true,
    .partial_rotary = true,
    .free_heads = true,
    .latent = true,
    .experts = {.any = true, .all_keys = true, .dense_first = true, .shared = true},
};
constexpr GgufFamily kGrok = {
    .name = "grok",
    .activation = "gelu",
    .attention_post_norm = "attn_output_norm",
    .mlp_post_norm = "layer_output_norm",
    .softcap = true,
    .score_scale_key = "attention.output_scale",
    .embedding_scale_key = "embedding_scale",
    .logit_scale_key = "logit_scale",
    .experts = {.any = true, .any_weights = true},
    .note = "llama.cpp computes GELU by its tanh form, the checkpoint's own code exactly",
};
constexpr GgufFamily kSmolLm3 = {.name = "smollm3", .interleaved = true, .free_heads = true, .unrotated_step = 4};

struct Row {
  std::string_view architecture;
  const GgufFamily& family;
};
constexpr Row kRows[] = {
    {"Phi3ForCausalLM", kPhi3},           {"LlamaForCausalLM", kLlama},       {"MistralForCausalLM", kLlama},
    {"MixtralForCausalLM", kLlama},       {"Qwen2ForCausalLM", kQwen2},       {"Qwen3ForCausalLM", kQwen3},
    {"Qwen2MoeForCausalLM", kQwen2Moe},   {"Qwen3MoeForCausalLM", kQwen3Moe}, {"GemmaForCausalLM", kGemma},
    {"Gemma2ForCausalLM", kGemma2},       {"Gemma3ForCausalLM", kGemma3},     {"DeepseekV2ForCausalLM", kDeepSeek},
    {"DeepseekV3ForCausalLM", kDeepSeek}, {"Grok1ModelForCausalLM", kGrok},   {"SmolLM3ForCausalLM", kSmolLm3},
};

}  // namespace

const GgufFamily* find_gguf_family(std::string_view architecture) {
  for (const Row& row : kRows)
    if (row.architecture == architecture) return &row.family;
  return nullptr;
}

}  // namespace upg
