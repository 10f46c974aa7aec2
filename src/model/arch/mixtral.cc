// Mixtral: Mistral with eight feed-forward blocks a layer, of which a token takes two.
#include "model/arch/common.h"

namespace upg {

Decoder load_mixtral(const ConfigReader& json, Weights& weights) {
  const Sizes s = read_sizes(json);
  const std::string_view activation = read_silu(json);
  const uint64_t window = json.integer("sliding_window", 0, uint64_t{1} << 32, 0);
  Routing routing;
  routing.experts = json.integer("num_local_experts", 1, 1 << 16, 8);
  routing.chosen = json.integer("num_experts_per_tok", 1, routing.experts, 2);
  const Rotary rotary = read_rotary(json, s.head_dim);
  Decoder d = read_frame(weights, s);
  d.rotary = {rotary};
  for (uint64_t i = 0; i < s.layers; ++i) {
    const std::string prefix = layer_prefix(i);
    DecoderLayer& layer = d.layers.emplace_back();
    layer.attention_norm = read_norm(weights, prefix + "input_layernorm", s.hidden);
    SelfAttention attention = read_attention(weights, prefix + "self_attn.", s, {});
    attention.shape.window = window;
    layer.attention = std::move(attention);
    layer.mlp_norm = read_norm(weights, prefix + "post_attention_layernorm", s.hidden);
    layer.mlp = read_experts(weights, prefix + "block_sparse_moe.", activation, s.hidden, s.intermediate, routing,
                             {"w1", "w3", "w2"});
  }
  return d;
}

}  // namespace upg
