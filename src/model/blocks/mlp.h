// The gated feed-forward block (Shazeer 2020).
#pragma once

#include <cstdint>
#include <string_view>

#include "model/blocks/attention.h"
#include "ops/projection.h"

namespace upg {

struct GatedMlp {
  std::string_view activation;  // one of glu_names()
  Projection gate_up;           // [2 intermediate, hidden]: gates first
  Projection down;              // [hidden, intermediate]
};

/// out = down(f(gate) * up): x, out [n_tokens, hidden].
void run_mlp(OpContext& context, const GatedMlp& mlp, const float* x, uint64_t n_tokens, Activations activations,
             BlockMemory& memory, float* out);

}  // namespace upg
