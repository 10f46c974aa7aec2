#include "model/arch/common.h"

#include <fmt/ranges.h>

#include "base/error.h"

namespace upg {

Sizes read_sizes(const ConfigReader& json, bool otherwise_tied, uint64_t otherwise_head_dim) {
  Sizes s{};
  s.hidden = json.integer("hidden_size", 1, 1 << 20);
  s.intermediate = json.integer("intermediate_size", 1, 1 << 22);
  s.layers = json.integer("num_hidden_layers", 1, 4096);
  s.vocab = json.integer("vocab_size", 1, 1 << 24);
  s.max_context = json.integer("max_position_embeddings", 1, uint64_t{1} << 32);
  s.heads = json.integer("num_attention_heads", 1, 1 << 16);
  s.kv_heads = json.integer("num_key_value_heads", 1, s.heads, s.heads);
  if (s.heads % s.kv_heads != 0) json.unsupported("num_key_value_heads", "must divide num_attention_heads");
  s.head_dim = json.integer("head_dim", 1, 1 << 16, otherwise_head_dim ? otherwise_head_dim : s.hidden / s.heads);
  if (s.head_dim == 0) json.unsupported("num_attention_heads", "more heads than hidden_size");
  s.epsilon = static_cast<float>(json.number("rms_norm_eps", 0, 1));
  s.tied = json.boolean("tie_word_embeddings", otherwise_tied);
  return s;
}

std::string_view read_activation(const ConfigReader& json, std::string_view key,
                                 std::initializer_list<ActivationName> accepted) {
  const std::string name = json.string(key, accepted.begin()->in_config);
  std::vector<std::string_view> known;
  for (const ActivationName& a : accepted) {
    if (a.in_config == name) return a.of_glu;
    known.push_back(a.in_config);
  }
  json.unsupported(key, fmt::format("only {} is", fmt::join(known, ", ")));
}

void require(const ConfigReader& json, std::string_view key, bool wanted) {
  if (json.boolean(key, wanted) != wanted) json.unsupported(key, fmt::format("only {} is", wanted));
}

Projection read_projection(Weights& weights, const std::string& prefix, uint64_t rows, uint64_t cols, bool bias,
                           bool to_stream) {
  std::vector<Linear> parts;
  parts.push_back(weights.linear(prefix + ".weight", rows, cols, to_stream));
  return Projection(std::move(parts), bias ? weights.vector(prefix + ".bias", rows) : std::vector<float>{});
}

Projection read_projections(Weights& weights, const std::string& prefix, std::initializer_list<NamedRows> named,
                            uint64_t cols, bool bias) {
  std::vector<Linear> parts;
  std::vector<float> biases;
  for (const NamedRows& part : named) {
    const std::string name = prefix + std::string(part.name);
    parts.push_back(weights.linear(name + ".weight", part.rows, cols));
    if (!bias) continue;
    const std::vector<float> mine = weights.vector(name + ".bias", part.rows);
    biases.insert(biases.end(), mine.begin(), mine.end());
  }
  return Projection(std::move(parts), std::move(biases));
}

SelfAttention read_attention(Weights& weights, const std::string& prefix, const Sizes& s,
                             const AttentionTraits& traits) {
  SelfAttention a;
  a.shape.heads = s.heads;
  a.shape.kv_heads = s.kv_heads;
  a.shape.head_dim = s.head_dim;
  const uint64_t kv = s.kv_heads * s.head_dim;
  a.qkv = read_projections(weights, prefix, {{"q_proj", s.heads * s.head_dim}, {"k_proj", kv}, {"v_proj", kv}},
                           s.hidden, traits.qkv_bias);
  a.output =
      read_projection(weights, prefix + "o_proj", s.hidden, s.heads * s.head_dim, traits.output_bias, traits.to_stream);
  if (traits.head_norms) {
    a.query_norm = read_norm(weights, prefix + "q_norm", s.head_dim);
    a.key_norm = read_norm(weights, prefix + "k_norm", s.head_dim);
  }
  return a;
}

GatedMlp read_mlp(Weights& weights, const std::string& prefix, std::string_view activation, uint64_t hidden,
                  uint64_t intermediate, bool bias, bool to_stream, const MlpNames& names) {
  GatedMlp mlp;
  mlp.activation = activation;
  mlp.gate_up = read_projections(weights, prefix, {{names.gate, intermediate}, {names.up, intermediate}}, hidden, bias);
  mlp.down = read_projection(weights, prefix + std::string(names.down), hidden, intermediate, bias, to_stream);
  return mlp;
}

Experts read_experts(Weights& weights, const std::string& prefix, std::string_view activation, uint64_t hidden,
                     uint64_t intermediate, const Routing& routing, const MlpNames& names) {
  Experts experts;
  experts.routing = routing;
  experts.router = read_projection(weights, prefix + "gate", routing.experts, hidden, false);
  for (uint64_t e = 0; e < routing.experts; ++e)
    experts.experts.push_back(read_mlp(weights, prefix + "experts." + std::to_string(e) + ".", activation, hidden,
                                       intermediate, false, false, names));
  return experts;
}

std::vector<float> read_norm(Weights& weights, const std::string& name, uint64_t n, bool plus_one) {
  std::vector<float> norm = weights.vector(name + ".weight", n);
  if (plus_one)
    for (float& w : norm) w += 1;
  return norm;
}

Decoder read_frame(Weights& weights, const Sizes& s, const FrameTraits& traits) {
  Decoder d;
  d.hidden = s.hidden;
  d.vocab = s.vocab;
  d.max_context = s.max_context;
  d.epsilon = s.epsilon;
  d.embedding = weights.linear("model.embed_tokens.weight", s.vocab, s.hidden);
  d.norm = weights.vector(std::string(traits.norm), s.hidden);
  if (traits.norm_plus_one)
    for (float& w : d.norm) w += 1;
  if (s.tied) weights.leave_out("lm_head.weight");  // some files repeat the embedding under this name
  d.head = s.tied ? Projection({d.embedding}) : read_projection(weights, "lm_head", s.vocab, s.hidden, false);
  return d;
}

std::vector<uint64_t> layer_windows(const ConfigReader& json, uint64_t layers, uint64_t window,
                                    const std::function<bool(uint64_t)>& windowed) {
  const std::vector<std::string> types = json.strings("layer_types");
  if (!types.empty() && types.size() != layers)
    json.unsupported("layer_types", fmt::format("must have {} entries, one a layer", layers));
  std::vector<uint64_t> windows;
  for (uint64_t i = 0; i < layers; ++i) {
    if (!types.empty() && types[i] != "sliding_attention" && types[i] != "full_attention")
      json.unsupported("layer_types", "only sliding_attention and full_attention are");
    const bool mine = types.empty() ? windowed(i) : types[i] == "sliding_attention";
    windows.push_back(mine ? window : 0);
  }
  return windows;
}

std::vector<uint64_t> qwen_windows(const ConfigReader& json, uint64_t layers) {
  if (!json.boolean("use_sliding_window", false)) return {};
  const uint64_t window = json.integer("sliding_window", 0, uint64_t{1} << 32, 0);
  const uint64_t first = json.integer("max_window_layers", 0, 4096, 28);
  return layer_windows(json, layers, window, [&](uint64_t i) { return i >= first; });
}

DecoderLayer read_sandwich_norms(Weights& weights, const std::string& prefix, uint64_t hidden) {
  DecoderLayer layer;
  layer.attention_norm = read_norm(weights, prefix + "input_layernorm", hidden, true);
  layer.attention_post_norm = read_norm(weights, prefix + "post_attention_layernorm", hidden, true);
  layer.mlp_norm = read_norm(weights, prefix + "pre_feedforward_layernorm", hidden, true);
  layer.mlp_post_norm = read_norm(weights, prefix + "post_feedforward_layernorm", hidden, true);
  return layer;
}

std::string layer_prefix(uint64_t index) { return "model.layers." + std::to_string(index) + "."; }

Decoder read_llama(const ConfigReader& json, Weights& weights, const Sizes& s, const LlamaTraits& traits,
                   const std::vector<uint64_t>& windows) {
  const std::string_view activation = read_silu(json);
  const Rotary rotary = read_rotary(json, s.head_dim);
  Decoder d = read_frame(weights, s);
  d.rotary = {rotary};
  for (uint64_t i = 0; i < s.layers; ++i) {
    const std::string prefix = layer_prefix(i);
    DecoderLayer& layer = d.layers.emplace_back();
    layer.attention_norm = read_norm(weights, prefix + "input_layernorm", s.hidden);
    SelfAttention attention = read_attention(weights, prefix + "self_attn.", s, traits.attention);
    if (!windows.empty()) attention.shape.window = windows[i];
    layer.attention = std::move(attention);
    layer.mlp_norm = read_norm(weights, prefix + "post_attention_layernorm", s.hidden);
    layer.mlp = read_mlp(weights, prefix + "mlp.", activation, s.hidden, s.intermediate, traits.mlp_bias);
  }
  return d;
}

}  // namespace upg
