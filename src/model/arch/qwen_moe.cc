// Qwen2-MoE and Qwen3-MoE: their dense siblings' attention, and experts in most layers; Qwen2's have a gated shared
// one.
#include <algorithm>

#include "model/arch/common.h"

namespace upg {
namespace {

struct QwenMoe {
  AttentionTraits attention;
  uint64_t shared_intermediate = 0;  // 0: no shared expert
  bool normalize = false;            // where "norm_topk_prob" is absent
};

Decoder read_qwen_moe(const ConfigReader& json, Weights& weights, const Sizes& s, const QwenMoe& traits) {
  const std::string_view activation = read_silu(json);
  const std::vector<uint64_t> windows = qwen_windows(json, s.layers);
  Routing routing;
  routing.experts = json.integer("num_experts", 1, 1 << 16);
  routing.chosen = json.integer("num_experts_per_tok", 1, routing.experts);
  routing.normalize = json.boolean("norm_topk_prob", traits.normalize);
  const uint64_t of_expert = json.integer("moe_intermediate_size", 1, 1 << 22);
  const uint64_t step = json.integer("decoder_sparse_step", 1, 4096, 1);
  const std::vector<uint64_t> dense = json.integers("mlp_only_layers", 4096);
  const Rotary rotary = read_rotary(json, s.head_dim);

  Decoder d = read_frame(weights, s);
  d.rotary = {rotary};
  for (uint64_t i = 0; i < s.layers; ++i) {
    const std::string prefix = layer_prefix(i), moe = prefix + "mlp.";
    DecoderLayer& layer = d.layers.emplace_back();
    layer.attention_norm = read_norm(weights, prefix + "input_layernorm", s.hidden);
    SelfAttention attention = read_attention(weights, prefix + "self_attn.", s, traits.attention);
    if (!windows.empty()) attention.shape.window = windows[i];
    layer.attention = std::move(attention);
    layer.mlp_norm = read_norm(weights, prefix + "post_attention_layernorm", s.hidden);
    if ((i + 1) % step != 0 || std::find(dense.begin(), dense.end(), i) != dense.end()) {
      layer.mlp = read_mlp(weights, moe, activation, s.hidden, s.intermediate);
      continue;
    }
    Experts experts = read_experts(weights, moe, activation, s.hidden, of_expert, routing);
    if (traits.shared_intermediate != 0) {
      experts.shared =
          read_mlp(weights, moe + "shared_expert.", activation, s.hidden, traits.shared_intermediate, false, false);
      experts.shared_gate = read_projection(weights, moe + "shared_expert_gate", 1, s.hidden, false);
    }
    layer.mlp = std::move(experts);
  }
  return d;
}

}  // namespace

Decoder load_qwen2_moe(const ConfigReader& json, Weights& weights) {
  QwenMoe traits;
  traits.attention.qkv_bias = json.boolean("qkv_bias", true);
  traits.shared_intermediate = json.integer("shared_expert_intermediate_size", 1, 1 << 22);
  return read_qwen_moe(json, weights, read_sizes(json), traits);
}

Decoder load_qwen3_moe(const ConfigReader& json, Weights& weights) {
  QwenMoe traits;
  traits.attention.qkv_bias = traits.attention.output_bias = json.boolean("attention_bias", false);
  traits.attention.head_norms = true;
  return read_qwen_moe(json, weights, read_sizes(json), traits);
}

}  // namespace upg
