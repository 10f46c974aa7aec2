// DeepSeek-V2 and V3: latent attention, shared and routed experts, routing limited to groups of experts.
#include <cmath>

#include "model/arch/common.h"

namespace upg {
namespace {

struct DeepSeek {
  Sizes sizes;
  uint64_t query_rank;  // 0: queries in one product
  LatentAttention attention;
  Routing routing;
  uint64_t expert_intermediate, shared_experts, first_experts, expert_step;
  std::string_view activation;
  Rotary rotary;
  bool choice_bias;  // the router has one
};

// Ways to choose experts, by the name in "topk_method".
struct Method {
  std::string_view name;
  bool groups;
  uint64_t best_of_group;
  bool bias;
};
constexpr Method kMethods[] = {
    {"greedy", false, 1, false}, {"group_limited_greedy", true, 1, false}, {"noaux_tc", true, 2, true}};

void read_routing(const ConfigReader& json, DeepSeek& d, std::string_view method_name, std::string_view scoring) {
  Routing& r = d.routing;
  r.experts = json.integer("n_routed_experts", 1, 1 << 16);
  r.chosen = json.integer("num_experts_per_tok", 1, r.experts);
  r.normalize = json.boolean("norm_topk_prob", false);
  r.scale = static_cast<float>(json.number("routed_scaling_factor", 0, 1e6, 1.0));
  const std::string score = json.string("scoring_func", scoring);
  if (score != "softmax" && score != "sigmoid") json.unsupported("scoring_func", "only softmax and sigmoid are");
  r.sigmoid = score == "sigmoid";
  const std::string name = json.string("topk_method", method_name);
  const Method* method = nullptr;
  for (const Method& m : kMethods)
    if (m.name == name) method = &m;
  if (!method) json.unsupported("topk_method", "only greedy, group_limited_greedy and noaux_tc are");
  d.choice_bias = method->bias;
  if (!method->groups) return;
  r.groups = json.integer("n_group", 1, r.experts);
  r.chosen_groups = json.integer("topk_group", 1, r.groups);
  r.best_of_group = method->best_of_group;
  if (r.experts % r.groups != 0) json.unsupported("n_group", "must divide n_routed_experts");
  if (r.chosen > r.experts / r.groups * r.chosen_groups)
    json.unsupported("num_experts_per_tok", "more than topk_group groups have");
}

DeepSeek read_deepseek(const ConfigReader& json, std::string_view method, std::string_view scoring) {
  DeepSeek d{};
  d.sizes = read_sizes(json);
  d.activation = read_silu(json);
  require(json, "attention_bias", false);
  LatentAttention& a = d.attention;
  a.heads = d.sizes.heads;
  a.rank = json.integer("kv_lora_rank", 1, 1 << 20);
  d.query_rank = json.integer("q_lora_rank", 0, 1 << 20, 0);
  a.plain_dim = json.integer("qk_nope_head_dim", 1, 1 << 16);
  a.rotary_dim = json.integer("qk_rope_head_dim", 2, 1 << 16);
  a.value_dim = json.integer("v_head_dim", 1, 1 << 16);
  if (a.rotary_dim % 2 != 0) json.unsupported("qk_rope_head_dim", "must be even");
  d.rotary = read_rotary(json, a.rotary_dim, json.boolean("rope_interleave", true));
  a.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(a.plain_dim + a.rotary_dim)));
  const auto scaling = json.object("rope_scaling");
  if (scaling) {
    const double factor = scaling->number("factor", 1e-3, 1e6, 1.0),
                 all = scaling->number("mscale_all_dim", 0, 1e3, 0.0);
    const double magnitude = factor > 1 ? 0.1 * all * std::log(factor) + 1 : 1;
    a.scale *= static_cast<float>(magnitude * magnitude);
  }
  d.first_experts = json.integer("first_k_dense_replace", 0, 4096, d.sizes.layers);
  d.expert_step = json.integer("moe_layer_freq", 1, 4096, 1);
  d.expert_intermediate = json.integer("moe_intermediate_size", 1, 1 << 22, d.sizes.intermediate);
  d.shared_experts = json.integer("n_shared_experts", 0, 1 << 10, 0);
  if (d.first_experts < d.sizes.layers) read_routing(json, d, method, scoring);
  return d;
}

LatentAttention read_attention(Weights& weights, const std::string& prefix, const DeepSeek& c) {
  LatentAttention a = c.attention;
  const uint64_t hidden = c.sizes.hidden, query_rows = a.heads * (a.plain_dim + a.rotary_dim);
  if (c.query_rank != 0) {
    a.query_down = read_projection(weights, prefix + "q_a_proj", c.query_rank, hidden, false);
    a.query_norm = read_norm(weights, prefix + "q_a_layernorm", c.query_rank);
    a.query = read_projection(weights, prefix + "q_b_proj", query_rows, c.query_rank, false);
  } else {
    a.query = read_projection(weights, prefix + "q_proj", query_rows, hidden, false);
  }
  a.latent = read_projection(weights, prefix + "kv_a_proj_with_mqa", a.rank + a.rotary_dim, hidden, false);
  a.latent_norm = read_norm(weights, prefix + "kv_a_layernorm", a.rank);
  a.expand = weights.linear(prefix + "kv_b_proj.weight", a.heads * (a.plain_dim + a.value_dim), a.rank);
  a.output = read_projection(weights, prefix + "o_proj", hidden, a.heads * a.value_dim, false, true);
  return a;
}

Decoder build(const ConfigReader& json, Weights& weights, const DeepSeek& c) {
  const Sizes& s = c.sizes;
  // Further layers that predict tokens after the next: not part of generation one token at a time.
  for (uint64_t i = 0; i < json.integer("num_nextn_predict_layers", 0, 64, 0); ++i)
    weights.leave_out(layer_prefix(s.layers + i));
  Decoder d = read_frame(weights, s);
  d.rotary = {c.rotary};
  for (uint64_t i = 0; i < s.layers; ++i) {
    const std::string prefix = layer_prefix(i), moe = prefix + "mlp.";
    DecoderLayer& layer = d.layers.emplace_back();
    layer.attention_norm = read_norm(weights, prefix + "input_layernorm", s.hidden);
    layer.attention = read_attention(weights, prefix + "self_attn.", c);
    layer.mlp_norm = read_norm(weights, prefix + "post_attention_layernorm", s.hidden);
    if (i < c.first_experts || i % c.expert_step != 0) {
      layer.mlp = read_mlp(weights, moe, c.activation, s.hidden, s.intermediate);
      continue;
    }
    Routing routing = c.routing;
    if (c.choice_bias) routing.choice_bias = weights.vector(moe + "gate.e_score_correction_bias", routing.experts);
    Experts experts = read_experts(weights, moe, c.activation, s.hidden, c.expert_intermediate, routing);
    if (c.shared_experts != 0)
      experts.shared = read_mlp(weights, moe + "shared_experts.", c.activation, s.hidden,
                                c.shared_experts * c.expert_intermediate, false, false);
    layer.mlp = std::move(experts);
  }
  return d;
}

}  // namespace

Decoder load_deepseek_v2(const ConfigReader& json, Weights& weights) {
  const DeepSeek c = read_deepseek(json, "greedy", "softmax");
  // The published code takes one or the other, transformers scales in any case.
  if (c.routing.normalize && c.routing.scale != 1)
    json.unsupported("norm_topk_prob", "only false is where routed_scaling_factor is not 1");
  return build(json, weights, c);
}

Decoder load_deepseek_v3(const ConfigReader& json, Weights& weights) {
  return build(json, weights, read_deepseek(json, "noaux_tc", "sigmoid"));
}

}  // namespace upg
