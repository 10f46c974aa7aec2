// A mixture of experts (Shazeer et al. 2017): a router sends each token through a few of many feed-forward blocks.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "model/blocks/mlp.h"

namespace upg {

/// How a router's scores become weights of experts.
struct Routing {
  uint64_t experts = 0;
  uint64_t chosen = 0;             // of a token
  bool sigmoid = false;            // scores are sigmoids of the logits; otherwise their softmax
  std::vector<float> choice_bias;  // [experts], added to scores for the choice only (DeepSeek-V3); or empty
  // Where groups > 1 a token's experts come from `chosen_groups` groups only: those whose best one, or whose best
  // `best_of_group` together, score most.
  uint64_t groups = 1, chosen_groups = 1, best_of_group = 1;
  bool normalize = true;  // weights are made to sum to 1
  float scale = 1;        // of the weights, after that
};

/// The chosen experts, ascending, and their weights, of one token. `logits` [experts].
std::vector<std::pair<uint32_t, float>> route(const Routing& routing, const float* logits);

struct Experts {
  Routing routing;
  Projection router;                      // [experts, hidden]
  std::vector<GatedMlp> experts;          // of one shape
  std::optional<GatedMlp> shared;         // every token goes through
  std::optional<Projection> shared_gate;  // [1, hidden]: a sigmoid of it scales the shared expert's result
};

/// x, out [n_tokens, hidden].
void run_experts(OpContext& context, const Experts& mixture, const float* x, uint64_t n_tokens, Activations activations,
                 BlockMemory& memory, float* out);

}  // namespace upg
