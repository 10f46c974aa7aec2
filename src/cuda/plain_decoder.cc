#include "cuda/plain_decoder.h"

#include "base/error.h"

namespace upg::cuda {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  fail(ErrorCode::kUnsupported, "the cuda device does not run {} yet; choose --device cpu", what);
}

std::vector<const Linear*> parts_of(const Projection& projection, const char* what, bool with_bias = false) {
  if (!with_bias && !projection.bias().empty()) refuse(fmt::format("{} with a bias", what));
  std::vector<const Linear*> parts;
  for (const Linear& part : projection.parts()) {
    if (!parts.empty() && parts.back()->rows() % 16 != 0)
      refuse(fmt::format("{} in matrices of {} rows, which is no multiple of 16,", what, parts.back()->rows()));
    parts.push_back(&part);
  }
  return parts;
}
const Linear* only_part(const Projection& projection, const char* what) { return parts_of(projection, what).at(0); }

bool same(const AttentionShape& a, const AttentionShape& b) {
  return a.heads == b.heads && a.kv_heads == b.kv_heads && a.head_dim == b.head_dim && a.window == b.window;
}

PlainLayer plain_layer(const DecoderLayer& layer, PlainDecoder& d) {
  const auto* attention = std::get_if<SelfAttention>(&layer.attention);
  const auto* mlp = std::get_if<GatedMlp>(&layer.mlp);
  if (!attention) refuse("latent attention");
  if (!mlp) refuse("mixtures of experts");
  if (mlp->activation != "silu") refuse(fmt::format("the activation {}", mlp->activation));
  if (!layer.attention_post_norm.empty() || !layer.mlp_post_norm.empty()) refuse("norms after blocks");
  if (attention->query_norm.empty() != attention->key_norm.empty()) refuse("norms of queries or keys alone");
  if (attention->shape.softcap != 0 || attention->shape.scale != 0) refuse("scaled or capped scores");
  if (layer.rotary != 0) refuse("layers that rotate by other frequencies");
  if (d.layers.empty()) {
    d.attention = attention->shape;
    d.intermediate = mlp->down.cols();
  }
  if (!same(d.attention, attention->shape) || d.intermediate != mlp->down.cols()) refuse("layers of several shapes");
  return {&layer.attention_norm,
          &layer.mlp_norm,
          parts_of(attention->qkv, "queries, keys and values", true),
          parts_of(mlp->gate_up, "gate and up"),
          only_part(attention->output, "the output of attention"),
          only_part(mlp->down, "down"),
          &attention->qkv.bias(),
          &attention->query_norm,
          &attention->key_norm};
}

}  // namespace

PlainDecoder plain_decoder(const Decoder& decoder, uint64_t first) {
  PlainDecoder d;
  d.hidden = decoder.hidden;
  d.vocab = decoder.vocab;
  d.epsilon = decoder.epsilon;
  d.rotary = &decoder.rotary.at(0);
  if (first == 0) d.embedding = &decoder.embedding;
  d.norm = &decoder.norm;
  d.head = only_part(decoder.head, "the head");
  if ((d.embedding != nullptr && decoder.embedding_scale != 1) || decoder.logit_scale != 1 || decoder.logit_cap != 0)
    refuse("scaled embeddings and capped logits");
  if (d.rotary->rope.interleaved()) refuse("rotated neighbours");
  for (uint64_t i = first; i < decoder.layers.size(); ++i) d.layers.push_back(plain_layer(decoder.layers[i], d));
  const AttentionShape& a = d.attention;
  if (a.head_dim % 8 != 0 || a.head_dim > 128)
    fail(ErrorCode::kUnsupported, "head_dim is {}: the cuda device has heads of multiples of 8 up to 128", a.head_dim);
  if (d.hidden % 4 != 0 || d.intermediate % 4 != 0)
    fail(ErrorCode::kUnsupported, "hidden_size {} and intermediate_size {}: the cuda device has multiples of 4",
         d.hidden, d.intermediate);
  for (uint64_t n : {d.hidden, 2 * d.intermediate, d.vocab, a.heads * a.head_dim})
    if (n > (uint64_t{1} << 30)) fail(ErrorCode::kUnsupported, "a width of {} is too large for the cuda device", n);
  return d;
}

}  // namespace upg::cuda
