// A decoder-only transformer as data: weights and numbers, for whatever runs it. Architectures fill one in.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <variant>
#include <vector>

#include "model/blocks/attention.h"
#include "model/blocks/experts.h"
#include "model/blocks/latent_attention.h"
#include "model/blocks/mlp.h"
#include "model/rope_types.h"
#include "ops/linear.h"

namespace upg {

/// x += post_norm(attention(norm(x))), then x += post_norm(mlp(norm(x))); norms are RMSNorm, a post norm may be absent.
struct DecoderLayer {
  std::vector<float> attention_norm, mlp_norm;            // [hidden]
  std::vector<float> attention_post_norm, mlp_post_norm;  // [hidden], or empty
  size_t rotary = 0;                                      // which of Decoder::rotary
  std::variant<SelfAttention, LatentAttention> attention;
  std::variant<GatedMlp, Experts> mlp;
};

struct Decoder {
  uint64_t hidden = 0, vocab = 0, max_context = 0;
  float epsilon = 0;
  float embedding_scale = 1;
  float logit_scale = 1;
  float logit_cap = 0;         // logits become cap * tanh(logits / cap); 0: they stay
  std::vector<Rotary> rotary;  // at least one
  Linear embedding;            // [vocab, hidden]
  std::vector<DecoderLayer> layers;
  std::vector<float> norm;  // [hidden]
  Projection head;          // [vocab, hidden]
};

/// Calls f(matrix, share) for each matrix that tokens are multiplied with, in order of use; `share` of the tokens, if
/// routers choose evenly.
void for_each_matrix(const Decoder& decoder, const std::function<void(const Linear& matrix, double share)>& f);

}  // namespace upg
