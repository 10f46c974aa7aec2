#include "model/blocks/attention.h"

#include <cmath>

namespace upg {

void causal_attention(OpContext& context, const AttentionShape& shape, const Rope& rope, uint64_t layer, float* qkv,
                      uint64_t n_tokens, KvCache& cache, float* out) {
  const uint64_t d = shape.head_dim;
  const uint64_t width = (shape.heads + 2 * shape.kv_heads) * d;
  const uint64_t start = cache.length();
  const uint64_t group = shape.heads / shape.kv_heads;

  context.pool.split(n_tokens, 1, [&](uint64_t begin, uint64_t end, unsigned worker) {
    float* angles = context.scratch(worker, rope.rotary_dim());  // of all heads of a token
    for (uint64_t t = begin; t < end; ++t) {
      rope.angles(start + t, angles);
      float* query = qkv + t * width;
      float* key = query + shape.heads * d;
      float* value = key + shape.kv_heads * d;
      for (uint64_t h = 0; h < shape.heads; ++h) rope.turn(query + h * d, angles);
      for (uint64_t h = 0; h < shape.kv_heads; ++h) {
        rope.turn(key + h * d, angles);
        cache.store(layer, h, start + t, key + h * d, value + h * d);
      }
    }
  });

  context.pool.each(n_tokens * shape.kv_heads, [&](uint64_t item, unsigned worker) {
    const uint64_t head = item / n_tokens;
    const uint64_t t = n_tokens - 1 - item % n_tokens;  // long ones first, so that the last to finish is short
    const uint64_t end = start + t + 1;
    const uint64_t first = shape.window != 0 && end > shape.window ? end - shape.window : 0;
    kernels::AttendArgs args{};
    args.q = qkv + t * width + head * group * d;
    args.out = out + t * shape.heads * d + head * group * d;
    args.scores = context.scratch(worker, group * (end - first));
    args.group = group;
    args.q_stride = d;
    args.scale = 1.0f / std::sqrt(static_cast<float>(d));
    cache.attend(layer, head, first, end, args);
  });
}

}  // namespace upg
