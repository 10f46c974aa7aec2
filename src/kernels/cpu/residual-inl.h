// Sparse weights on top of those of another codec: their products, and themselves. Include after mdcsr_<isa>-inl.h.
#pragma once

#include <stdint.h>

#include "codec/layout/mdcsr.h"
#include "kernels/args.h"

namespace upg::kernels {
namespace {

/// y[t][r] += residual[r] x[t], in float whatever the codec's own activations are.
inline void add_residual(const MdcsrView* residual, const MatmulArgs& args) {
  if (residual == nullptr) return;
  for (uint64_t r = args.row_begin; r < args.row_end; ++r)
    for (uint64_t t = 0; t < args.n_tokens; ++t)
      args.y[t * args.y_stride + r] += mdcsr_row_product<false>(*residual, args.x + t * residual->cols, r);
}

/// Adds the weights of columns [col_begin, col_end) to out, with the bits of Codec::decode_row.
inline void add_residual(const MdcsrView* residual, const UnpackArgs& args) {
  if (residual == nullptr) return;
  const MdcsrView& w = *residual;
  for (uint64_t j = 0; j < 16; ++j) {
    const uint64_t row = args.panel * 16 + j;
    if (row >= w.rows) return;
    uint64_t k = w.row_pointers[row];
    const uint64_t end = w.row_pointers[row + 1];
    uint64_t column = 0;
    for (; k < end; ++k) {
      column += w.delta_indices[k];
      if (column >= args.col_end) break;
      if (column < args.col_begin || w.values[k] == kSkipValue) continue;
      args.out[(column - args.col_begin) * 16 + j] += w.scales[row] * static_cast<float>(w.values[k]);
    }
  }
}

}  // namespace
}  // namespace upg::kernels
