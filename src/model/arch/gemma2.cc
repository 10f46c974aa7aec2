// Gemma 2: Gemma with norms after the blocks too, every second layer with a window, and capped scores and logits.
#include <cmath>

#include "model/arch/common.h"

namespace upg {

Decoder load_gemma2(const ConfigReader& json, Weights& weights) {
  const Sizes s = read_sizes(json, true, 256);
  const std::string_view activation = read_activation(json, "hidden_activation", {{"gelu_pytorch_tanh", "gelu_tanh"}});
  require(json, "attention_bias", false);
  const uint64_t window = json.integer("sliding_window", 1, uint64_t{1} << 32, 4096);
  const std::vector<uint64_t> windows = layer_windows(json, s.layers, window, [](uint64_t i) { return i % 2 == 0; });
  const auto scale = static_cast<float>(1 / std::sqrt(json.number("query_pre_attn_scalar", 1e-3, 1e6, 256.0)));
  const auto softcap = static_cast<float>(json.number("attn_logit_softcapping", 0, 1e6, 0.0));
  const Rotary rotary = read_rotary(json, s.head_dim);
  Decoder d = read_frame(weights, s, {.norm_plus_one = true});
  d.rotary = {rotary};
  d.embedding_scale = std::sqrt(static_cast<float>(s.hidden));
  d.logit_cap = static_cast<float>(json.number("final_logit_softcapping", 0, 1e6, 0.0));
  for (uint64_t i = 0; i < s.layers; ++i) {
    DecoderLayer& layer = d.layers.emplace_back(read_sandwich_norms(weights, layer_prefix(i), s.hidden));
    SelfAttention attention = read_attention(weights, layer_prefix(i) + "self_attn.", s, {.to_stream = false});
    attention.shape.window = windows[i];
    attention.shape.scale = scale;
    attention.shape.softcap = softcap;
    layer.attention = std::move(attention);
    layer.mlp = read_mlp(weights, layer_prefix(i) + "mlp.", activation, s.hidden, s.intermediate, false, false);
  }
  return d;
}

}  // namespace upg
