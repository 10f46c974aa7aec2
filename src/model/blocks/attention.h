// Causal self-attention over a KV cache, shared by architectures.
#pragma once

#include <cstdint>
#include <vector>

#include "model/kv_cache.h"
#include "ops/elementwise.h"
#include "ops/linear.h"

namespace upg {

struct AttentionShape {
  uint64_t heads;
  uint64_t kv_heads;  // divides heads
  uint64_t head_dim;
  uint64_t window;  // positions a token sees, itself included; 0: all before it
};

/// `qkv` [n_tokens, (heads + 2 kv_heads) * head_dim], query heads first, is turned by `rope` in place; keys and values
/// go to the cache at positions cache.length() and on; out [n_tokens, heads * head_dim].
void causal_attention(OpContext& context, const AttentionShape& shape, const Rope& rope, uint64_t layer, float* qkv,
                      uint64_t n_tokens, KvCache& cache, float* out);

}  // namespace upg
