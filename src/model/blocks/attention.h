// Causal self-attention over a KV cache, shared by architectures.
#pragma once

#include <cstdint>
#include <vector>

#include "model/kv_cache.h"
#include "ops/elementwise.h"
#include "ops/projection.h"
#include "ops/rope.h"

namespace upg {

struct AttentionShape {
  uint64_t heads = 0;
  uint64_t kv_heads = 0;  // divides heads
  uint64_t head_dim = 0;
  uint64_t window = 0;  // positions a token sees, itself included; 0: all before it
  float scale = 0;      // of scores; 0: 1 / sqrt(head_dim)
  float softcap = 0;    // scores become cap * tanh(score / cap); 0: they stay
};

struct SelfAttention {
  AttentionShape shape;
  Projection qkv;                           // [(heads + 2 kv_heads) * head_dim, hidden]: queries, keys, values
  Projection output;                        // [hidden, heads * head_dim]
  std::vector<float> query_norm, key_norm;  // RMSNorm of each head [head_dim], before the rotation; or empty
};

/// What blocks work in; kept from call to call.
struct BlockMemory {
  std::vector<float> wide, inner, gathered, scattered;
};

/// out [n_tokens, hidden] from x [n_tokens, hidden], the normed residual stream. Keys and values go to the cache at
/// positions cache.length() and on.
void attend(OpContext& context, const SelfAttention& attention, const Rope& rope, float epsilon, uint64_t layer,
            const float* x, uint64_t n_tokens, Activations activations, KvCache& cache, BlockMemory& memory,
            float* out);

/// `qkv` [n_tokens, (heads + 2 kv_heads) * head_dim], query heads first, is turned by `rope` in place; keys and values
/// go to the cache at positions cache.length() and on; out [n_tokens, heads * head_dim].
void causal_attention(OpContext& context, const AttentionShape& shape, const Rope& rope, uint64_t layer, float* qkv,
                      uint64_t n_tokens, KvCache& cache, float* out);

}  // namespace upg
