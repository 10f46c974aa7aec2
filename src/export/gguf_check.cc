// What llama.cpp would run otherwise than the model is, refused by name.
#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/error.h"
#include "export/gguf_model.h"

namespace upg {
namespace {

constexpr size_t kMostLayers = 512;
constexpr uint64_t kMostExperts = 512;

class Check {
 public:
  explicit Check(const GgufSource& source) : s_(source), d_(source.decoder), f_(source.family) {}

  void all() {
    if (d_.layers.empty() || d_.layers.size() > kMostLayers)
      refuse(fmt::format("{} layers: 1 to {} are possible", d_.layers.size(), kMostLayers));
    if (f_.tied_only && !is_tied()) refuse("an output matrix of its own");
    if (f_.logit_scale_key.empty() && d_.logit_scale != 1) refuse("a multiplier of logits");
    const float embedding = f_.root_embedding ? std::sqrt(static_cast<float>(d_.hidden)) : 1;
    if (f_.embedding_scale_key.empty() && d_.embedding_scale != embedding) refuse("this multiplier of embeddings");
    if (!f_.logit_cap && d_.logit_cap != 0) refuse("capped logits");
    if (f_.needs_logit_cap && d_.logit_cap == 0) refuse("logits that are not capped");
    for (const Rotary& rotary : d_.rotary) check_rotary(rotary);
    if (d_.rotary.size() > 1 && !f_.local_rotary && f_.unrotated_step == 0) refuse("two rotations");
    for (size_t i = 0; i < d_.layers.size(); ++i) {
      layer_ = i;
      check_layer(d_.layers[i]);
    }
    check_experts();
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorCode::kUnsupported, "{}: cannot be exported to GGUF: llama.cpp's architecture \"{}\" does not have {}",
         s_.where, f_.name, what);
  }
  [[noreturn]] void refuse_layer(std::string_view what) const { refuse(fmt::format("{} (layer {})", what, layer_)); }

  bool is_tied() const { return d_.head.parts().at(0).name() == d_.embedding.name(); }

  void check_rotary(const Rotary& rotary) const {
    const RotaryScaling& s = rotary.scaling;
    if (s.type == "llama3" && !f_.rotary_factors) refuse("rotary scaling of type llama3");
    if ((s.type == "longrope" || s.type == "su") && !f_.long_factors) refuse("rotary scaling of type longrope");
    if (s.type != "yarn") return;
    if (s.fast != 32 || s.slow != 1) refuse("yarn with a beta_fast other than 32 or a beta_slow other than 1");
    if (!s.truncate) refuse("yarn without truncation");
    if (f_.latent && std::abs(rotary.rope.magnitude() - 1) > 1e-6f)
      refuse("yarn with mscale other than mscale_all_dim");
  }

  void check_layer(const DecoderLayer& layer) const {
    if (layer.attention_post_norm.empty() != f_.attention_post_norm.empty() ||
        layer.mlp_post_norm.empty() != f_.mlp_post_norm.empty())
      refuse_layer("this number of norms");
    const Rotary& rotary = d_.rotary.at(layer.rotary);
    const bool turns = rotary.rope.rotary_dim() != 0;
    if (turns != (f_.unrotated_step == 0 || (layer_ + 1) % f_.unrotated_step != 0))
      refuse_layer(turns ? "positions that turn here" : "positions that do not turn here");
    if (rotary.rope.interleaved() && !f_.interleaved) refuse_layer("interleaved rotation");
    if (std::holds_alternative<LatentAttention>(layer.attention) != f_.latent) refuse_layer("this attention");
    if (const auto* attention = std::get_if<SelfAttention>(&layer.attention)) check_attention(*attention, layer);
    if (const auto* mlp = std::get_if<GatedMlp>(&layer.mlp)) check_mlp(*mlp);
    if (const auto* experts = std::get_if<Experts>(&layer.mlp)) {
      for (const GatedMlp& expert : experts->experts) {
        check_mlp(expert);
        if (!expert.down.bias().empty() || !expert.gate_up.bias().empty()) refuse_layer("biases of experts");
      }
      if (!experts->router.bias().empty()) refuse_layer("a bias of the router");
      if (experts->shared) check_mlp(*experts->shared);
    }
  }

  void check_attention(const SelfAttention& a, const DecoderLayer& layer) const {
    const AttentionShape& shape = a.shape;
    if (!f_.free_heads && shape.heads * shape.head_dim != d_.hidden)
      refuse_layer(
          fmt::format("heads that are {} wide together in a model of {}", shape.heads * shape.head_dim, d_.hidden));
    const uint64_t turning = d_.rotary.at(layer.rotary).rope.rotary_dim();
    if (!f_.partial_rotary && turning != 0 && turning != shape.head_dim) refuse_layer("heads that turn in part");
    if (!f_.output_bias && !a.output.bias().empty()) refuse_layer("a bias of attention's output");
    if (a.query_norm.empty() == f_.head_norms) refuse_layer(f_.head_norms ? "heads without norms" : "norms of heads");
    if (f_.softcap != (shape.softcap != 0)) refuse_layer(f_.softcap ? "scores that are not capped" : "capped scores");
    if (f_.local_rotary && (layer.rotary != 0) != (shape.window != 0)) refuse_layer("this rotation");
    if (f_.softcap && shape.softcap != first().softcap) refuse_layer("another cap of scores");
    if (f_.windows && shape.window != 0 && shape.window != largest_window()) refuse_layer("windows of several sizes");
  }

  void check_mlp(const GatedMlp& mlp) const {
    if (mlp.activation != f_.activation) refuse_layer(fmt::format("{} in feed-forward blocks", mlp.activation));
    if (!f_.mlp_bias && (!mlp.gate_up.bias().empty() || !mlp.down.bias().empty()))
      refuse_layer("biases of feed-forward blocks");
  }

  const AttentionShape& first() const { return std::get<SelfAttention>(d_.layers[0].attention).shape; }
  uint64_t largest_window() const {
    uint64_t window = 0;
    for (const DecoderLayer& layer : d_.layers)
      window = std::max(window, std::get<SelfAttention>(layer.attention).shape.window);
    return window;
  }

  void check_experts() {
    size_t with = 0;
    for (layer_ = 0; layer_ < d_.layers.size(); ++layer_) {
      const auto* experts = std::get_if<Experts>(&d_.layers[layer_].mlp);
      if (experts == nullptr) {
        if (with != 0) refuse_layer("a layer without experts after one with them");
        continue;
      }
      if (with++ == 0 && layer_ != 0 && !f_.experts.dense_first) refuse_layer("experts in some layers only");
      check_mixture(*experts);
    }
    const bool needed = f_.experts.shared || f_.experts.any_weights;  // these graphs have nothing else
    if (with == 0 && needed && !f_.experts.dense_first) refuse("a model without experts");
    if (with == 0 && f_.latent) refuse("a model without experts");
  }

  void check_mixture(const Experts& experts) const {
    const Routing& r = experts.routing;
    const GgufExperts& e = f_.experts;
    if (!e.any) refuse_layer("experts");
    if (r.experts > kMostExperts) refuse_layer(fmt::format("{} experts: {} are the most", r.experts, kMostExperts));
    if (experts.shared.has_value() != e.shared)
      refuse_layer(e.shared ? "layers without a shared expert" : "a shared expert");
    if (experts.shared_gate.has_value() != e.shared_gate)
      refuse_layer(e.shared_gate ? "a shared expert without a gate" : "a gate of the shared expert");
    if (!e.all_keys) {
      if (r.sigmoid) refuse_layer("experts chosen by sigmoids");
      if (!r.choice_bias.empty()) refuse_layer("a bias of the choice of experts");
      if (r.scale != 1) refuse_layer("a multiplier of the experts' weights");
      if (!e.any_weights && r.normalize != e.normalize)
        refuse_layer(e.normalize ? "experts' weights that do not sum to 1" : "experts' weights made to sum to 1");
    }
    if (r.groups > 1 && r.chosen_groups < r.groups && r.best_of_group != 2)
      refuse_layer("groups of experts chosen by their best one (it takes the best two)");
  }

  const GgufSource& s_;
  const Decoder& d_;
  const GgufFamily& f_;
  size_t layer_ = 0;
};

}  // namespace

void check_gguf(const GgufSource& source) { Check(source).all(); }

}  // namespace upg
