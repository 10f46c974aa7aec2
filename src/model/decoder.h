// A decoder-only transformer as data: weights and numbers, for whatever runs it.
#pragma once

#include <cstdint>
#include <vector>

#include "model/blocks/attention.h"
#include "ops/linear.h"

namespace upg {

struct DecoderLayer {
  std::vector<float> attention_norm, mlp_norm;  // [hidden]
  Linear qkv;                                   // [(heads + 2 kv_heads) * head_dim, hidden]: queries, keys, values
  Linear output;                                // [hidden, heads * head_dim]
  Linear gate_up;                               // [2 intermediate, hidden]
  Linear down;                                  // [hidden, intermediate]
};

/// Pre-norm (RMSNorm) layers of attention with rotary positions and SwiGLU.
struct Decoder {
  uint64_t hidden = 0, intermediate = 0, vocab = 0, max_context = 0;
  AttentionShape attention{};
  Rope rope;
  float epsilon = 0;
  Linear embedding;  // [vocab, hidden]
  std::vector<DecoderLayer> layers;
  std::vector<float> norm;  // [hidden]
  Linear head;              // [vocab, hidden]
};

}  // namespace upg
