#include "model/arch/phi3.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "model/decoder.h"
#include "ops/elementwise.h"

namespace upg {
namespace {

struct Config {
  uint64_t hidden, intermediate, layers, vocab, max_context;
  AttentionShape attention;
  uint64_t rotary_dim;
  double rope_base;
  float epsilon;
  bool tied;
};

Config read_config(const ConfigReader& json) {
  Config c{};
  c.hidden = json.integer("hidden_size", 1, 1 << 20);
  c.intermediate = json.integer("intermediate_size", 1, 1 << 22);
  c.layers = json.integer("num_hidden_layers", 1, 4096);
  c.vocab = json.integer("vocab_size", 1, 1 << 24);
  c.max_context = json.integer("max_position_embeddings", 1, uint64_t{1} << 32);
  c.attention.heads = json.integer("num_attention_heads", 1, 1 << 16);
  c.attention.kv_heads = json.integer("num_key_value_heads", 1, c.attention.heads, c.attention.heads);
  if (c.attention.heads % c.attention.kv_heads != 0)
    json.unsupported("num_key_value_heads", "must divide num_attention_heads");
  c.attention.head_dim = json.integer("head_dim", 1, 1 << 16, c.hidden / c.attention.heads);
  if (c.attention.head_dim == 0) json.unsupported("num_attention_heads", "more heads than hidden_size");
  c.attention.window = json.integer("sliding_window", 0, uint64_t{1} << 32, 0);
  c.epsilon = static_cast<float>(json.number("rms_norm_eps", 0, 1));
  c.tied = json.boolean("tie_word_embeddings", false);

  if (json.string("hidden_act", "silu") != "silu") json.unsupported("hidden_act", "only silu is");
  if (json.boolean("attention_bias", false)) json.unsupported("attention_bias", "only false is");
  // transformers 5 gathers the rotary options in one object; earlier files have them at the top.
  const auto rope = json.object("rope_parameters");
  const ConfigReader& rotary = rope ? *rope : json;
  if (rope && rope->string("rope_type", "default") != "default") rope->unsupported("rope_type", "only default is");
  if (json.object("rope_scaling")) json.unsupported("rope_scaling", "only null is");
  c.rope_base = rotary.number("rope_theta", 1, 1e12, 10000.0);
  const double share = rotary.number("partial_rotary_factor", 0, 1, json.number("partial_rotary_factor", 0, 1, 1.0));
  c.rotary_dim = static_cast<uint64_t>(static_cast<double>(c.attention.head_dim) * share);
  if (c.rotary_dim % 2 != 0) json.unsupported("head_dim", "the rotary part of a head must be even");
  return c;
}

Decoder read_decoder(const Config& c, Weights& weights) {
  Decoder d;
  d.hidden = c.hidden;
  d.intermediate = c.intermediate;
  d.vocab = c.vocab;
  d.max_context = c.max_context;
  d.attention = c.attention;
  d.rope = Rope(c.rotary_dim, c.rope_base);
  d.epsilon = c.epsilon;
  const uint64_t query_width = c.attention.heads * c.attention.head_dim;
  const uint64_t qkv_width = query_width + 2 * c.attention.kv_heads * c.attention.head_dim;
  d.embedding = weights.linear("model.embed_tokens.weight", c.vocab, c.hidden);
  for (uint64_t i = 0; i < c.layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    DecoderLayer& layer = d.layers.emplace_back();
    layer.attention_norm = weights.vector(prefix + "input_layernorm.weight", c.hidden);
    layer.qkv = weights.linear(prefix + "self_attn.qkv_proj.weight", qkv_width, c.hidden);
    layer.output = weights.linear(prefix + "self_attn.o_proj.weight", c.hidden, query_width, true);
    layer.mlp_norm = weights.vector(prefix + "post_attention_layernorm.weight", c.hidden);
    layer.gate_up = weights.linear(prefix + "mlp.gate_up_proj.weight", 2 * c.intermediate, c.hidden);
    layer.down = weights.linear(prefix + "mlp.down_proj.weight", c.hidden, c.intermediate, true);
  }
  d.norm = weights.vector("model.norm.weight", c.hidden);
  d.head = c.tied ? d.embedding : weights.linear("lm_head.weight", c.vocab, c.hidden);
  return d;
}

class Phi3 final : public Model {
 public:
  Phi3(const Config& config, Weights& weights) : d_(read_decoder(config, weights)) {
    shape_ = {d_.vocab, d_.hidden, d_.max_context, {config.layers, d_.attention.kv_heads, d_.attention.head_dim}};
  }

  const Decoder* decoder() const override { return &d_; }

  void embed(OpContext& context, std::span<const int32_t> tokens, float* x) override {
    d_.embedding.lookup(context, tokens, x);
  }

  void layer(OpContext& context, uint64_t index, uint64_t n, Activations activations, KvCache& cache,
             float* x) override {
    const DecoderLayer& layer = d_.layers[index];
    h_.resize(n * std::max(d_.hidden, d_.intermediate));
    wide_.resize(n * std::max(layer.qkv.rows(), 2 * d_.intermediate));
    mixed_.resize(n * std::max(d_.hidden, layer.output.cols()));

    rms_norm(context, x, layer.attention_norm, d_.epsilon, n, h_.data());
    layer.qkv.apply(context, h_.data(), n, activations, wide_.data());
    causal_attention(context, d_.attention, d_.rope, index, wide_.data(), n, cache, mixed_.data());
    layer.output.apply(context, mixed_.data(), n, activations, h_.data());
    add_to(context, x, h_.data(), n * d_.hidden);

    rms_norm(context, x, layer.mlp_norm, d_.epsilon, n, h_.data());
    layer.gate_up.apply(context, h_.data(), n, activations, wide_.data());
    swiglu(context, wide_.data(), n, d_.intermediate, h_.data());
    layer.down.apply(context, h_.data(), n, activations, mixed_.data());
    add_to(context, x, mixed_.data(), n * d_.hidden);
  }

  void head(OpContext& context, uint64_t n, Activations activations, const float* x, float* logits) override {
    h_.resize(n * d_.hidden);
    rms_norm(context, x, d_.norm, d_.epsilon, n, h_.data());
    d_.head.apply(context, h_.data(), n, activations, logits);
  }

 private:
  Decoder d_;
  std::vector<float> h_, wide_, mixed_;  // normed or hidden, projections, mixed heads
};

}  // namespace

std::unique_ptr<Model> load_phi3(const ConfigReader& config, Weights& weights) {
  return std::make_unique<Phi3>(read_config(config), weights);
}

}  // namespace upg
