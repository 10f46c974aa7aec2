#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "export/gguf_model.h"

namespace upg {
namespace {

class Hyperparameters {
 public:
  explicit Hyperparameters(GgufSource& source) : s_(source), d_(source.decoder), f_(source.family) {}

  GgufMetadata all() {
    add_count("vocab_size", d_.vocab);
    add_count("context_length", context_length());
    add_count("embedding_length", d_.hidden);
    add_count("block_count", d_.layers.size());
    add("attention.layer_norm_rms_epsilon", d_.epsilon);
    if (!f_.embedding_scale_key.empty()) add(f_.embedding_scale_key, d_.embedding_scale);
    if (!f_.logit_scale_key.empty()) add(f_.logit_scale_key, d_.logit_scale);
    if (d_.logit_cap != 0) add("final_logit_softcapping", d_.logit_cap);
    if (const auto* attention = std::get_if<SelfAttention>(&d_.layers[0].attention)) add_heads(attention->shape);
    if (const auto* latent = std::get_if<LatentAttention>(&d_.layers[0].attention)) add_latent(*latent);
    add_feed_forward();
    add_rotary();
    return std::move(metadata_);
  }

 private:
  void add(std::string_view key, GgufValue value) {
    metadata_.emplace_back(fmt::format("{}.{}", f_.name, key), std::move(value));
  }
  void add_count(std::string_view key, uint64_t value) {
    if (value > UINT32_MAX)
      fail(ErrorCode::kUnsupported, "{}: {} is {}: GGUF has 32 bits for it", s_.where, key, value);
    add(key, static_cast<uint32_t>(value));
  }

  uint64_t context_length() {
    uint64_t context = d_.max_context;
    if (f_.windows) return context;
    for (const DecoderLayer& layer : d_.layers)
      if (const auto* a = std::get_if<SelfAttention>(&layer.attention); a && a->shape.window != 0)
        context = std::min(context, a->shape.window);
    if (context < d_.max_context)
      s_.notes.push_back(
          fmt::format("the context is {} tokens, the size of the sliding window, which llama.cpp's "
                      "architecture \"{}\" does not have; the model's is {}",
                      context, f_.name, d_.max_context));
    return context;
  }

  void add_heads(const AttentionShape& shape) {
    add_count("attention.head_count", shape.heads);
    add_count("attention.head_count_kv", shape.kv_heads);
    add_count("attention.key_length", shape.head_dim);
    add_count("attention.value_length", shape.head_dim);
    if (!f_.score_scale_key.empty())
      add(f_.score_scale_key, shape.scale != 0 ? shape.scale : 1 / std::sqrt(static_cast<float>(shape.head_dim)));
    if (shape.softcap != 0) add("attn_logit_softcapping", shape.softcap);
    if (!f_.windows) return;
    std::vector<bool> windowed;
    uint64_t window = 0;
    for (const DecoderLayer& layer : d_.layers) {
      const uint64_t mine = std::get<SelfAttention>(layer.attention).shape.window;
      windowed.push_back(mine != 0);
      window = std::max(window, mine);
    }
    if (window == 0) return;
    add_count("attention.sliding_window", window);
    add("attention.sliding_window_pattern", std::move(windowed));
  }

  // One key head, which is the latent vector and the rotary key.
  void add_latent(const LatentAttention& a) {
    add_count("attention.head_count", a.heads);
    add_count("attention.head_count_kv", 1);
    add_count("attention.key_length", a.rank + a.rotary_dim);
    add_count("attention.value_length", a.rank);
    add_count("attention.key_length_mla", a.plain_dim + a.rotary_dim);
    add_count("attention.value_length_mla", a.value_dim);
    add_count("attention.kv_lora_rank", a.rank);
    const uint64_t query_rank = a.query_down.parts().empty() ? 0 : a.query_down.rows();
    add_count("attention.q_lora_rank", query_rank);
    // It goes by the number of layers there, not by the file.
    const size_t layers = d_.layers.size();
    const bool lite = layers == 27 || layers == 26 || (layers == 48 && d_.vocab == 128256);
    if (lite && query_rank != 0)
      fail(ErrorCode::kUnsupported,
           "{}: cannot be exported to GGUF: llama.cpp takes a \"{}\" model of {} layers for one without q_lora_rank",
           s_.where, f_.name, layers);
  }

  void add_feed_forward() {
    const GatedMlp* plain = nullptr;
    const Experts* mixture = nullptr;
    uint64_t without = 0;
    for (const DecoderLayer& layer : d_.layers) {
      if (const auto* mlp = std::get_if<GatedMlp>(&layer.mlp)) {
        plain = mlp;
        ++without;
      } else {
        mixture = &std::get<Experts>(layer.mlp);
      }
    }
    add_count("feed_forward_length", plain ? plain->down.cols() : mixture->experts.at(0).down.cols());
    if (mixture == nullptr) return;
    const Routing& r = mixture->routing;
    add_count("expert_count", r.experts);
    add_count("expert_used_count", r.chosen);
    add_count("expert_feed_forward_length", mixture->experts.at(0).down.cols());
    if (r.groups > 1 && r.chosen_groups < r.groups) {
      add_count("expert_group_count", r.groups);
      add_count("expert_group_used_count", r.chosen_groups);
    }
    if (mixture->shared) add_shared(*mixture);
    if (!f_.experts.all_keys) return;
    add_count("leading_dense_block_count", without);
    add("expert_weights_scale", r.scale);
    add("expert_weights_norm", r.normalize);
    add_count("expert_gating_func", r.sigmoid ? 2 : 1);
  }

  void add_shared(const Experts& mixture) {
    const uint64_t width = mixture.shared->down.cols(), one = mixture.experts.at(0).down.cols();
    if (f_.experts.shared_gate) return add_count("expert_shared_feed_forward_length", width);
    if (width % one != 0)
      fail(ErrorCode::kUnsupported,
           "{}: cannot be exported to GGUF: the shared expert must be as wide as a number of others", s_.where);
    add_count("expert_shared_count", width / one);
  }

  void add_rotary() {
    const Rotary& rotary = d_.rotary.at(0);
    const RotaryScaling& s = rotary.scaling;
    add_count("rope.dimension_count", rotary.rope.rotary_dim());
    add("rope.freq_base", static_cast<float>(s.base));
    if (f_.local_rotary && d_.rotary.size() > 1)
      add("rope.freq_base_swa", static_cast<float>(d_.rotary[1].scaling.base));
    if (s.type == "linear" || s.type == "yarn") {
      add("rope.scaling.type", std::string(s.type));
      add("rope.scaling.factor", static_cast<float>(s.factor));
    }
    const double usual = 1 + 0.1 * std::log(s.factor);  // what llama.cpp multiplies by under yarn
    if (s.type == "yarn") {
      add_count("rope.scaling.original_context_length", s.original_context);
      if (f_.latent) {
        add_latent_magnitude(s.factor);
      } else {
        add("rope.scaling.attn_factor", static_cast<float>(static_cast<double>(rotary.rope.magnitude()) / usual));
      }
    }
    if (rotary.limit != UINT64_MAX) {
      add("rope.scaling.type", std::string("longrope"));
      add_count("rope.scaling.original_context_length", s.original_context);
      add("rope.scaling.attn_factor", rotary.rope.magnitude());
    }
  }

  // Scores are scaled by (1 + multiplier * ln(factor))^2 / sqrt(head).
  void add_latent_magnitude(double factor) {
    const auto& a = std::get<LatentAttention>(d_.layers[0].attention);
    const double root = std::sqrt(static_cast<double>(a.plain_dim + a.rotary_dim));
    const double multiplier = factor > 1 ? (std::sqrt(static_cast<double>(a.scale) * root) - 1) / std::log(factor) : 0;
    if (std::abs(multiplier) < 1e-6)
      fail(ErrorCode::kUnsupported, "{}: cannot be exported to GGUF: llama.cpp's yarn needs mscale_all_dim", s_.where);
    add("rope.scaling.yarn_log_multiplier", static_cast<float>(multiplier));
  }

  GgufSource& s_;
  const Decoder& d_;
  const GgufFamily& f_;
  GgufMetadata metadata_;
};

}  // namespace

GgufMetadata gguf_hyperparameters(GgufSource& source) { return Hyperparameters(source).all(); }

}  // namespace upg
