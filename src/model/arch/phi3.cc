#include "model/arch/phi3.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "model/blocks/attention.h"
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

struct Layer {
  std::vector<float> attention_norm, mlp_norm;
  Linear qkv, output, gate_up, down;
};

class Phi3 final : public Model {
 public:
  Phi3(const Config& config, Weights& weights) : c_(config), rope_(config.rotary_dim, config.rope_base) {
    shape_ = {c_.vocab, c_.hidden, c_.max_context, {c_.layers, c_.attention.kv_heads, c_.attention.head_dim}};
    const uint64_t query_width = c_.attention.heads * c_.attention.head_dim;
    const uint64_t qkv_width = query_width + 2 * c_.attention.kv_heads * c_.attention.head_dim;
    embedding_ = weights.linear("model.embed_tokens.weight", c_.vocab, c_.hidden);
    for (uint64_t i = 0; i < c_.layers; ++i) {
      const std::string prefix = "model.layers." + std::to_string(i) + ".";
      Layer& layer = layers_.emplace_back();
      layer.attention_norm = weights.vector(prefix + "input_layernorm.weight", c_.hidden);
      layer.qkv = weights.linear(prefix + "self_attn.qkv_proj.weight", qkv_width, c_.hidden);
      layer.output = weights.linear(prefix + "self_attn.o_proj.weight", c_.hidden, query_width, true);
      layer.mlp_norm = weights.vector(prefix + "post_attention_layernorm.weight", c_.hidden);
      layer.gate_up = weights.linear(prefix + "mlp.gate_up_proj.weight", 2 * c_.intermediate, c_.hidden);
      layer.down = weights.linear(prefix + "mlp.down_proj.weight", c_.hidden, c_.intermediate, true);
    }
    norm_ = weights.vector("model.norm.weight", c_.hidden);
    head_ = c_.tied ? embedding_ : weights.linear("lm_head.weight", c_.vocab, c_.hidden);
  }

  void embed(OpContext& context, std::span<const int32_t> tokens, float* x) override {
    embedding_.lookup(context, tokens, x);
  }

  void layer(OpContext& context, uint64_t index, uint64_t n, Activations activations, KvCache& cache,
             float* x) override {
    const Layer& layer = layers_[index];
    h_.resize(n * std::max(c_.hidden, c_.intermediate));
    wide_.resize(n * std::max(layer.qkv.rows(), 2 * c_.intermediate));
    mixed_.resize(n * std::max(c_.hidden, layer.output.cols()));

    rms_norm(context, x, layer.attention_norm, c_.epsilon, n, h_.data());
    layer.qkv.apply(context, h_.data(), n, activations, wide_.data());
    causal_attention(context, c_.attention, rope_, index, wide_.data(), n, cache, mixed_.data());
    layer.output.apply(context, mixed_.data(), n, activations, h_.data());
    add_to(context, x, h_.data(), n * c_.hidden);

    rms_norm(context, x, layer.mlp_norm, c_.epsilon, n, h_.data());
    layer.gate_up.apply(context, h_.data(), n, activations, wide_.data());
    swiglu(context, wide_.data(), n, c_.intermediate, h_.data());
    layer.down.apply(context, h_.data(), n, activations, mixed_.data());
    add_to(context, x, mixed_.data(), n * c_.hidden);
  }

  void head(OpContext& context, uint64_t n, Activations activations, const float* x, float* logits) override {
    h_.resize(n * c_.hidden);
    rms_norm(context, x, norm_, c_.epsilon, n, h_.data());
    head_.apply(context, h_.data(), n, activations, logits);
  }

 private:
  Config c_;
  Rope rope_;
  Linear embedding_;
  std::vector<Layer> layers_;
  std::vector<float> norm_;
  Linear head_;
  std::vector<float> h_, wide_, mixed_;  // normed or hidden, projections, mixed heads
};

}  // namespace

std::unique_ptr<Model> load_phi3(const ConfigReader& config, Weights& weights) {
  return std::make_unique<Phi3>(read_config(config), weights);
}

}  // namespace upg
