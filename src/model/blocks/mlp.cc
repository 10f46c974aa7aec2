#include "model/blocks/mlp.h"

namespace upg {

void run_mlp(OpContext& context, const GatedMlp& mlp, const float* x, uint64_t n_tokens, Activations activations,
             BlockMemory& memory, float* out) {
  const uint64_t width = mlp.down.cols();
  memory.wide.resize(n_tokens * 2 * width);
  memory.inner.resize(n_tokens * width);
  mlp.gate_up.apply(context, x, n_tokens, activations, memory.wide.data());
  glu(context, mlp.activation, memory.wide.data(), n_tokens, width, memory.inner.data());
  mlp.down.apply(context, memory.inner.data(), n_tokens, activations, out);
}

}  // namespace upg
