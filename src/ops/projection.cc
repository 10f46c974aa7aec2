#include "ops/projection.h"

namespace upg {

uint64_t Projection::rows() const {
  uint64_t rows = 0;
  for (const Linear& part : parts_) rows += part.rows();
  return rows;
}

void Projection::apply(OpContext& context, const float* x, uint64_t n_tokens, Activations activations, float* y) const {
  const uint64_t width = rows();
  uint64_t row = 0;
  for (const Linear& part : parts_) {
    part.apply(context, x, n_tokens, activations, y + row, width);
    row += part.rows();
  }
  if (bias_.empty()) return;
  for (uint64_t t = 0; t < n_tokens; ++t)
    for (uint64_t r = 0; r < width; ++r) y[t * width + r] += bias_[r];
}

}  // namespace upg
