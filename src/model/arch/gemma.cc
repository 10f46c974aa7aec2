// Gemma: Llama with norms stored as differences from 1, a scaled embedding and GELU.
#include <cmath>

#include "model/arch/common.h"

namespace upg {

Decoder load_gemma(const ConfigReader& json, Weights& weights) {
  const Sizes s = read_sizes(json, true, 256);
  // Early files say "gelu" in hidden_act and mean its approximation, which hidden_activation names where it is there.
  const std::string_view activation =
      json.has("hidden_activation")
          ? read_activation(json, "hidden_activation", {{"gelu_pytorch_tanh", "gelu_tanh"}, {"gelu", "gelu_tanh"}})
          : read_activation(json, "hidden_act", {{"gelu_pytorch_tanh", "gelu_tanh"}, {"gelu", "gelu_tanh"}});
  require(json, "attention_bias", false);
  const Rotary rotary = read_rotary(json, s.head_dim);
  Decoder d = read_frame(weights, s, {.norm_plus_one = true});
  d.rotary = {rotary};
  d.embedding_scale = std::sqrt(static_cast<float>(s.hidden));
  for (uint64_t i = 0; i < s.layers; ++i) {
    const std::string prefix = layer_prefix(i);
    DecoderLayer& layer = d.layers.emplace_back();
    layer.attention_norm = read_norm(weights, prefix + "input_layernorm", s.hidden, true);
    layer.attention = read_attention(weights, prefix + "self_attn.", s, {});
    layer.mlp_norm = read_norm(weights, prefix + "post_attention_layernorm", s.hidden, true);
    layer.mlp = read_mlp(weights, prefix + "mlp.", activation, s.hidden, s.intermediate);
  }
  return d;
}

}  // namespace upg
