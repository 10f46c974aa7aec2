// Looking up rows of a trellis matrix.
#pragma once

#include "cuda/trellis.cuh"

namespace upg::cuda {

/// x [cols] = row `token`. Threads 0 to threads - 1 come here, with different `thread`.
__device__ inline void embed_row(const TrellisMatrix& w, int32_t token, uint32_t thread, uint32_t threads, float* x) {
  const uint32_t panel = static_cast<uint32_t>(token) / 16, row = static_cast<uint32_t>(token) % 16;
  const float row_scale = w.row_scales[token];
  for (uint32_t block = thread; block < w.blocks; block += threads) {
    const uint8_t* step = w.data + (static_cast<uint64_t>(panel) * w.steps + block / kStepBlocks) * step_bytes(w.bits);
    const uint32_t in_step = block % kStepBlocks;
    const uint32_t lane = 4 * (row / 4 + 4 * (in_step % 2)) + in_step / 2;
    uint32_t levels[8];
    const uint32_t scales = *reinterpret_cast<const uint16_t*>(step + 512 * w.bits + 2 * lane);
    const float scale = w.block_steps[(scales >> (4 * (row % 4))) & 15] * row_scale;
    with_bytes(w, [&](auto type) {
      using Decoder = typename decltype(type)::type;
      uint32_t words[Decoder::kBits];
      for (uint32_t k = 0; k < Decoder::kBits; ++k)
        words[k] = *reinterpret_cast<const uint32_t*>(step + 512 * k + 16 * lane + 4 * (row % 4));
      Decoder(w, 1, kOffset).bytes(words, levels);
    });
    for (uint32_t c = 0; c < 32 && 32 * block + c < w.cols; ++c) {
      const unsigned place = place_of_column(c);
      const int level = static_cast<int>((levels[place / 4] >> (8 * (place % 4))) & 255) - 128;
      __stcg(x + 32 * block + c, static_cast<float>(level) * scale);
    }
  }
  if (w.residual_values == nullptr) return;
  // Each thread has all entries pass by and adds those of its own blocks.
  uint32_t column = 0;
  const float scale = w.residual_scales[token];
  for (uint32_t k = w.residual_row_pointers[token]; k < w.residual_row_pointers[token + 1]; ++k) {
    column += w.residual_deltas[k];
    const int value = w.residual_values[k];
    if (value != -128 && column / 32 % threads == thread)
      __stcg(x + column, __ldcg(x + column) + __fmul_rn(scale, static_cast<float>(value)));
  }
}

}  // namespace upg::cuda
