// Phi-3 and Phi-4: queries, keys and values in one matrix, gate and up in another; LongRoPE in the long-context ones,
// a part of each head rotated and tied embeddings in Phi-4-mini.
#include "model/arch/common.h"

namespace upg {

Decoder load_phi3(const ConfigReader& json, Weights& weights) {
  const Sizes s = read_sizes(json);
  const std::string_view activation = read_silu(json);
  require(json, "attention_bias", false);
  const uint64_t window = json.integer("sliding_window", 0, uint64_t{1} << 32, 0);
  const auto gathered = json.object("rope_parameters");
  const double share = (gathered ? *gathered : json)
                           .number("partial_rotary_factor", 0, 1, json.number("partial_rotary_factor", 0, 1, 1.0));
  const auto rotary_dim = static_cast<uint64_t>(static_cast<double>(s.head_dim) * share);
  if (rotary_dim % 2 != 0) json.unsupported("head_dim", "the rotary part of a head must be even");
  const Rotary rotary = read_rotary(json, rotary_dim);

  Decoder d = read_frame(weights, s);
  d.rotary = {rotary};
  const uint64_t query_width = s.heads * s.head_dim;
  const uint64_t qkv_width = query_width + 2 * s.kv_heads * s.head_dim;
  for (uint64_t i = 0; i < s.layers; ++i) {
    const std::string prefix = layer_prefix(i);
    DecoderLayer& layer = d.layers.emplace_back();
    layer.attention_norm = read_norm(weights, prefix + "input_layernorm", s.hidden);
    SelfAttention attention;
    attention.shape = {s.heads, s.kv_heads, s.head_dim, window};
    attention.qkv = read_projection(weights, prefix + "self_attn.qkv_proj", qkv_width, s.hidden, false);
    attention.output = read_projection(weights, prefix + "self_attn.o_proj", s.hidden, query_width, false, true);
    layer.attention = std::move(attention);
    layer.mlp_norm = read_norm(weights, prefix + "post_attention_layernorm", s.hidden);
    GatedMlp mlp;
    mlp.activation = activation;
    mlp.gate_up = read_projection(weights, prefix + "mlp.gate_up_proj", 2 * s.intermediate, s.hidden, false);
    mlp.down = read_projection(weights, prefix + "mlp.down_proj", s.hidden, s.intermediate, false, true);
    layer.mlp = std::move(mlp);
  }
  return d;
}

}  // namespace upg
