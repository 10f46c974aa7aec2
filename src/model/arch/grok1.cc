// Grok-1, in the layout of the checkpoint on the hub: norms around the blocks, multipliers of embedding, scores and
// logits, capped scores, and two experts a token with the probabilities they have among all.
#include "model/arch/common.h"

namespace upg {

Decoder load_grok1(const ConfigReader& json, Weights& weights) {
  const Sizes s = read_sizes(json, true);
  const auto multiplier = [&](const char* key, double otherwise) {
    return static_cast<float>(json.number(key, 1e-6, 1e6, otherwise));
  };
  AttentionShape shape{s.heads, s.kv_heads, s.head_dim};
  shape.scale = multiplier("attn_output_multiplier", 1);
  shape.softcap = multiplier("max_attn_value", 30);
  Routing routing;
  routing.experts = json.integer("num_experts", 1, 1 << 16, 8);
  routing.chosen = json.integer("num_experts_per_tok", 1, routing.experts, 2);
  routing.normalize = false;
  const Rotary rotary = make_rotary(json, {}, {s.head_dim, json.number("rope_theta", 1, 1e12, 1e4), s.max_context});

  Decoder d = read_frame(weights, s, {.norm = "model.norm.scale"});
  d.rotary = {rotary};
  d.embedding_scale = multiplier("embedding_multiplier_scale", 1);
  d.logit_scale = multiplier("output_multiplier_scale", 1);
  for (uint64_t i = 0; i < s.layers; ++i) {
    const std::string prefix = layer_prefix(i);
    DecoderLayer& layer = d.layers.emplace_back();
    layer.attention_norm = weights.vector(prefix + "pre_attn_norm.scale", s.hidden);
    layer.attention_post_norm = weights.vector(prefix + "post_attn_norm.scale", s.hidden);
    layer.mlp_norm = weights.vector(prefix + "pre_moe_norm.scale", s.hidden);
    layer.mlp_post_norm = weights.vector(prefix + "post_moe_norm.scale", s.hidden);
    SelfAttention attention = read_attention(weights, prefix + "attn.", s, {.to_stream = false});
    attention.shape = shape;
    layer.attention = std::move(attention);
    layer.mlp = read_experts(weights, prefix + "moe_block.", "gelu", s.hidden, s.intermediate, routing,
                             {"linear", "linear_v", "linear_1"});
  }
  return d;
}

}  // namespace upg
