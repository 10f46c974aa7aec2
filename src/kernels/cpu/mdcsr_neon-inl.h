// A row of an MdCSR matrix times a float vector, for sources compiled for AArch64: there are no gathers, so that four
// scalar sums are as good as anything that was tried elsewhere.
#pragma once

#include <stdint.h>

#include "codec/layout/mdcsr.h"

namespace upg::kernels {
namespace {

/// W[r] x
template <bool kManifold>
inline float mdcsr_row_product(const MdcsrView& w, const float* x, uint64_t r) {
  float sums[4] = {};
  uint64_t column = 0;
  const uint64_t begin = w.row_pointers[r], end = w.row_pointers[r + 1];
  for (uint64_t k = begin; k < end; ++k) {
    column += w.delta_indices[k];
    if (w.values[k] == kSkipValue) continue;
    float value = static_cast<float>(w.values[k]);
    if constexpr (kManifold) value += w.prime_levels[w.prime_indices[k]];
    sums[k & 3] = __builtin_fmaf(value, x[column], sums[k & 3]);
  }
  return w.scales[r] * ((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace
}  // namespace upg::kernels
