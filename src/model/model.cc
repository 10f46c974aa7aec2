#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <variant>

#include "ops/elementwise.h"

namespace upg {
namespace {

KvLayer cached(const SelfAttention& a) {
  return {a.shape.kv_heads, a.shape.head_dim, a.shape.head_dim, a.shape.window};
}
KvLayer cached(const LatentAttention& a) { return a.cached(); }

void run(OpContext& context, const GatedMlp& mlp, const float* x, uint64_t n, Activations activations,
         BlockMemory& memory, float* out) {
  run_mlp(context, mlp, x, n, activations, memory, out);
}
void run(OpContext& context, const Experts& experts, const float* x, uint64_t n, Activations activations,
         BlockMemory& memory, float* out) {
  run_experts(context, experts, x, n, activations, memory, out);
}

}  // namespace

Model::Model(Decoder decoder) : d_(std::move(decoder)) {
  shape_ = {d_.vocab, d_.hidden, d_.max_context, d_.layers.size(), {}};
  for (const DecoderLayer& layer : d_.layers)
    shape_.kv.layers.push_back(std::visit([](const auto& a) { return cached(a); }, layer.attention));
}

void Model::forward(OpContext& context, std::span<const int32_t> tokens, Activations activations, KvCache& cache,
                    LogitsRange range, float* logits) {
  const float* x = forward(context, tokens, activations, Batch(cache, tokens.size()));
  if (range.begin == range.end) return;
  head(context, range.end - range.begin, activations, x + range.begin * d_.hidden, logits);
}

const float* Model::forward(OpContext& context, std::span<const int32_t> tokens, Activations activations,
                            const Batch& batch, uint64_t layers) {
  x_.resize(tokens.size() * d_.hidden);
  embed(context, tokens, x_.data());
  for (uint64_t i = 0; i < std::min<uint64_t>(layers, d_.layers.size()); ++i)
    layer(context, i, batch, activations, x_.data());
  for (const Batch::Run& run : batch.runs) run.cache->set_length(run.cache->length() + run.n_tokens);
  return x_.data();
}

void Model::embed(OpContext& context, std::span<const int32_t> tokens, float* x) {
  d_.embedding.lookup(context, tokens, x);
  if (d_.embedding_scale != 1)
    for (uint64_t i = 0; i < tokens.size() * d_.hidden; ++i) x[i] *= d_.embedding_scale;
}

void Model::layer(OpContext& context, uint64_t index, const Batch& batch, Activations activations, float* x) {
  const DecoderLayer& layer = d_.layers[index];
  const uint64_t n = batch.tokens.size();
  normed_.resize(n * d_.hidden);
  result_.resize(n * d_.hidden);
  const auto add = [&](const std::vector<float>& post_norm) {
    if (!post_norm.empty()) rms_norm(context, result_.data(), post_norm, d_.epsilon, n, result_.data());
    add_to(context, x, result_.data(), n * d_.hidden);
  };

  rms_norm(context, x, layer.attention_norm, d_.epsilon, n, normed_.data());
  std::visit(
      [&](const auto& attention) {
        attend(context, attention, d_.rotary[layer.rotary], d_.epsilon, index, normed_.data(), batch, activations,
               memory_, result_.data());
      },
      layer.attention);
  add(layer.attention_post_norm);

  rms_norm(context, x, layer.mlp_norm, d_.epsilon, n, normed_.data());
  std::visit([&](const auto& mlp) { run(context, mlp, normed_.data(), n, activations, memory_, result_.data()); },
             layer.mlp);
  add(layer.mlp_post_norm);
}

void Model::final_norm(OpContext& context, uint64_t n, float* x) { rms_norm(context, x, d_.norm, d_.epsilon, n, x); }

void Model::head(OpContext& context, uint64_t n, Activations activations, const float* x, float* logits) {
  normed_.resize(n * d_.hidden);
  rms_norm(context, x, d_.norm, d_.epsilon, n, normed_.data());
  d_.head.apply(context, normed_.data(), n, activations, logits);
  if (d_.logit_scale == 1 && d_.logit_cap == 0) return;
  context.pool.split(n * d_.vocab, 4096, [&](uint64_t begin, uint64_t end, unsigned) {
    for (uint64_t i = begin; i < end; ++i) {
      logits[i] *= d_.logit_scale;
      if (d_.logit_cap != 0) logits[i] = d_.logit_cap * std::tanh(logits[i] / d_.logit_cap);
    }
  });
}

}  // namespace upg
