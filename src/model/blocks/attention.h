// Causal self-attention over a KV cache, shared by architectures.
#pragma once

#include <cstdint>
#include <vector>

#include "model/kv_cache.h"
#include "model/rope_types.h"
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

/// The tokens of a pass: several runs of consecutive ones, each of a sequence of its own.
struct Batch {
  struct Run {
    KvCache* cache;  // tokens are at cache->length() and on
    uint64_t n_tokens;
  };
  struct Token {
    KvCache* cache;
    uint64_t position;
  };
  explicit Batch(std::vector<Run> all);
  Batch(KvCache& cache, uint64_t n_tokens) : Batch({{&cache, n_tokens}}) {}

  std::vector<Run> runs;
  std::vector<Token> tokens;  // of all runs, one after the other
};

/// What blocks work in; kept from call to call.
struct BlockMemory {
  std::vector<float> wide, inner, gathered, scattered;
};

/// out [n_tokens, hidden] from x [n_tokens, hidden], the normed residual stream of the batch. Keys and values go to the
/// caches.
void attend(OpContext& context, const SelfAttention& attention, const Rotary& rotary, float epsilon, uint64_t layer,
            const float* x, const Batch& batch, Activations activations, BlockMemory& memory, float* out);

/// `qkv` [n_tokens, (heads + 2 kv_heads) * head_dim], query heads first, is turned in place; keys and values go to the
/// caches; out [n_tokens, heads * head_dim].
void causal_attention(OpContext& context, const AttentionShape& shape, const Rotary& rotary, uint64_t layer, float* qkv,
                      const Batch& batch, float* out);

}  // namespace upg
