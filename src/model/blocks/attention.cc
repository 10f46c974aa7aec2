#include "model/blocks/attention.h"

#include <cmath>

namespace upg {
namespace {

// Norms `heads` heads that follow each other in each token's row of x [n_tokens, width].
void norm_heads(OpContext& context, float* x, uint64_t n_tokens, uint64_t width, uint64_t heads,
                const std::vector<float>& weight, float epsilon) {
  const auto run = kernels::select(kernels::rms_norm_kernels(), "f32").run;
  context.pool.split(n_tokens, 8, [&](uint64_t begin, uint64_t end, unsigned) {
    for (uint64_t t = begin; t < end; ++t)
      run({x + t * width, weight.data(), x + t * width, heads, weight.size(), epsilon});
  });
}

}  // namespace

Batch::Batch(std::vector<Run> all) : runs(std::move(all)) {
  for (const Run& run : runs)
    for (uint64_t i = 0; i < run.n_tokens; ++i) tokens.push_back({run.cache, run.cache->length() + i});
}

void attend(OpContext& context, const SelfAttention& attention, const Rotary& rotary, float epsilon, uint64_t layer,
            const float* x, const Batch& batch, Activations activations, BlockMemory& memory, float* out) {
  const AttentionShape& s = attention.shape;
  const uint64_t width = attention.qkv.rows(), n_tokens = batch.tokens.size();
  memory.wide.resize(n_tokens * width);
  memory.inner.resize(n_tokens * s.heads * s.head_dim);
  float* qkv = memory.wide.data();
  attention.qkv.apply(context, x, n_tokens, activations, qkv);
  if (!attention.query_norm.empty()) norm_heads(context, qkv, n_tokens, width, s.heads, attention.query_norm, epsilon);
  if (!attention.key_norm.empty())
    norm_heads(context, qkv + s.heads * s.head_dim, n_tokens, width, s.kv_heads, attention.key_norm, epsilon);
  causal_attention(context, s, rotary, layer, qkv, batch, memory.inner.data());
  attention.output.apply(context, memory.inner.data(), n_tokens, activations, out);
}

void causal_attention(OpContext& context, const AttentionShape& shape, const Rotary& rotary, uint64_t layer, float* qkv,
                      const Batch& batch, float* out) {
  const uint64_t d = shape.head_dim;
  const uint64_t width = (shape.heads + 2 * shape.kv_heads) * d;
  const uint64_t group = shape.heads / shape.kv_heads, n_tokens = batch.tokens.size();

  for (const Batch::Run& run : batch.runs) run.cache->make_room(layer, run.n_tokens);
  context.pool.split(n_tokens, 1, [&](uint64_t begin, uint64_t end, unsigned worker) {
    for (uint64_t t = begin; t < end; ++t) {
      const auto& [cache, position] = batch.tokens[t];
      const Rope& rope = rotary.of_capacity(cache->capacity());
      float* angles = context.scratch(worker, rope.rotary_dim());  // of all heads of a token
      rope.angles(position, angles);
      float* query = qkv + t * width;
      float* key = query + shape.heads * d;
      float* value = key + shape.kv_heads * d;
      for (uint64_t h = 0; h < shape.heads; ++h) rope.turn(query + h * d, angles);
      for (uint64_t h = 0; h < shape.kv_heads; ++h) {
        rope.turn(key + h * d, angles);
        cache->store(layer, h, position, key + h * d, value + h * d);
      }
    }
  });

  context.pool.each(n_tokens * shape.kv_heads, [&](uint64_t item, unsigned worker) {
    const uint64_t head = item / n_tokens;
    const uint64_t t = n_tokens - 1 - item % n_tokens;  // long ones first, so that the last to finish is short
    const auto& [cache, position] = batch.tokens[t];
    const uint64_t first = cache->first_seen(layer, position), end = position + 1;
    kernels::AttendArgs args{};
    args.q = qkv + t * width + head * group * d;
    args.out = out + t * shape.heads * d + head * group * d;
    args.scores = context.scratch(worker, group * (end - first));
    args.group = group;
    args.q_stride = args.out_stride = d;
    args.scale = shape.scale != 0 ? shape.scale : 1.0f / std::sqrt(static_cast<float>(d));
    args.softcap = shape.softcap;
    cache->attend(layer, head, first, end, args);
  });
}

}  // namespace upg
