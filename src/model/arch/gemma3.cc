// Gemma 3 (text): norms around the blocks and on heads; of each group of layers all but the last have a window and
// rotate by frequencies of their own.
#include <cmath>

#include "model/arch/common.h"

namespace upg {
namespace {

// Norms of heads are stored as differences from 1.
SelfAttention read_gemma3_attention(Weights& weights, const std::string& prefix, const Sizes& s) {
  SelfAttention a = read_attention(weights, prefix, s, {.to_stream = false});
  a.query_norm = read_norm(weights, prefix + "q_norm", s.head_dim, true);
  a.key_norm = read_norm(weights, prefix + "k_norm", s.head_dim, true);
  return a;
}

}  // namespace

Decoder load_gemma3(const ConfigReader& json, Weights& weights) {
  const Sizes s = read_sizes(json, true, 256);
  const std::string_view activation = read_activation(json, "hidden_activation", {{"gelu_pytorch_tanh", "gelu_tanh"}});
  require(json, "attention_bias", false);
  require(json, "use_bidirectional_attention", false);
  const uint64_t window = json.integer("sliding_window", 1, uint64_t{1} << 32, 4096);
  const uint64_t pattern = json.integer("sliding_window_pattern", 1, 4096, 6);
  const std::vector<uint64_t> windows =
      layer_windows(json, s.layers, window, [&](uint64_t i) { return (i + 1) % pattern != 0; });
  const auto scale = static_cast<float>(1 / std::sqrt(json.number("query_pre_attn_scalar", 1e-3, 1e6, 256.0)));
  const auto softcap = static_cast<float>(json.number("attn_logit_softcapping", 0, 1e6, 0.0));
  const Rotary global = make_rotary(json, json.object("rope_scaling"),
                                    {s.head_dim, json.number("rope_theta", 1, 1e12, 1e6), s.max_context});
  const Rotary local =
      make_rotary(json, {}, {s.head_dim, json.number("rope_local_base_freq", 1, 1e12, 1e4), s.max_context});
  Decoder d = read_frame(weights, s, {.norm_plus_one = true});
  d.rotary = {global, local};
  d.embedding_scale = std::sqrt(static_cast<float>(s.hidden));
  d.logit_cap = static_cast<float>(json.number("final_logit_softcapping", 0, 1e6, 0.0));
  for (uint64_t i = 0; i < s.layers; ++i) {
    DecoderLayer& layer = d.layers.emplace_back(read_sandwich_norms(weights, layer_prefix(i), s.hidden));
    SelfAttention attention = read_gemma3_attention(weights, layer_prefix(i) + "self_attn.", s);
    attention.shape.window = windows[i];
    attention.shape.scale = scale;
    attention.shape.softcap = softcap;
    layer.rotary = windows[i] != 0 ? 1 : 0;
    layer.attention = std::move(attention);
    layer.mlp = read_mlp(weights, layer_prefix(i) + "mlp.", activation, s.hidden, s.intermediate, false, false);
  }
  return d;
}

}  // namespace upg
