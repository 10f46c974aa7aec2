// Multi-head latent attention (DeepSeek-V2, 2024): the cache keeps one latent vector and one rotary key a position,
// from which all heads' keys and values follow by a product.
#pragma once

#include <cstdint>
#include <vector>

#include "model/blocks/attention.h"

namespace upg {

struct LatentAttention {
  uint64_t heads = 0;
  uint64_t plain_dim = 0;   // of a head's query and key, not rotated
  uint64_t rotary_dim = 0;  // rotated; all heads share the key's
  uint64_t value_dim = 0;
  uint64_t rank = 0;               // of the latent vector
  float scale = 0;                 // of scores
  Projection query_down;           // [query_rank, hidden]; no parts: queries come from `query` directly
  std::vector<float> query_norm;   // [query_rank]
  Projection query;                // [heads * (plain_dim + rotary_dim), query_rank or hidden]
  Projection latent;               // [rank + rotary_dim, hidden]: the latent vector, then the rotary key
  std::vector<float> latent_norm;  // [rank]
  Linear expand;                   // [heads * (plain_dim + value_dim), rank]: a head's key, then its value
  Projection output;               // [hidden, heads * value_dim]

  /// What a layer of it keeps of a position.
  KvLayer cached() const { return {1, rank + rotary_dim, rank, 0, true}; }
};

/// As attend() for SelfAttention. Keys and values are never expanded: q . (E c) is (E^T q) . c, and the values' product
/// follows the weighted sum of latent vectors.
void attend(OpContext& context, const LatentAttention& attention, const Rotary& rotary, float epsilon, uint64_t layer,
            const float* x, const Batch& batch, Activations activations, BlockMemory& memory, float* out);

}  // namespace upg
