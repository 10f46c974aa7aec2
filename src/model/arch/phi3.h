// Phi-3 and Phi-4 (Phi3ForCausalLM): pre-norm decoder with fused QKV and gate-up projections, grouped-query attention,
// rotary positions, SwiGLU. Abdin et al. 2024, "Phi-4 Technical Report".
#pragma once

#include <memory>

#include "model/config.h"
#include "model/model.h"
#include "model/weights.h"

namespace upg {

std::unique_ptr<Model> load_phi3(const ConfigReader& config, Weights& weights);

}  // namespace upg
