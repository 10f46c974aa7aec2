// What the two products of many tokens share.
#pragma once

#include "cuda/batch.h"
#include "cuda/halves.cuh"
#include "cuda/product.cuh"

namespace upg::cuda {

/// On GPUs of compute capability 9.0 exactly, in builds for sm_90a.
cudaError_t multiply_tokens_wide(const TrellisMatrix& w, HalfTokens x, uint32_t n, float* y, uint64_t stride,
                                 Queue queue);

struct FewParts {
  cudaError_t status;
  uint32_t slices;  // 0: nothing was started, as it does not fit
};
/// Of up to kFewTokens, for each slice of the columns: resources.parts [slices][n][16 panels] receives them.
FewParts multiply_few_tokens(const TrellisMatrix& w, HalfTokens x, uint32_t n, const GemmResources& resources,
                             Queue queue);

/// The same by Hopper's warpgroup instructions, of tokens that lie together, for which tokens_together() is not 0.
FewParts multiply_few_tokens_wide(const TrellisMatrix& w, HalfTokens x, uint32_t n, const GemmResources& resources,
                                  Queue queue);

/// A block's step as what a byte, read as a half of its own, is multiplied with, and what is added for it to be a
/// level: (byte 2^-24) factor + offset = (byte - 128) step / kHalfUnit, with one rounding. Steps are integers below
/// 256.
struct HalfStep {
  __half2 factor, offset;
};
constexpr float kHalfUnit = 65536.0f;
__device__ inline HalfStep half_step(float step) {
  return {__float2half2_rn(step * (0x1p24f / kHalfUnit)), __float2half2_rn(step * (-128.0f / kHalfUnit))};
}

// Four levels + 128 to halves, times the step: two registers of two.
__device__ __forceinline__ void to_halves(uint32_t biased, const HalfStep& step, uint32_t* out) {
#pragma unroll
  for (unsigned i = 0; i < 2; ++i) {
    const uint32_t bytes = lookup(biased, 0, i == 0 ? 0x4140u : 0x4342u);
    out[i] = bits_of(__hfma2(*reinterpret_cast<const __half2*>(&bytes), step.factor, step.offset));
  }
}

/// One row's block as halves, in the order of place_of_column(), two to a register, by a decoder of levels + 128.
/// `panel` is the panel's step, `steps` [16] the block steps.
template <typename Decoder>
__device__ __forceinline__ void decode_halves(const Decoder& decoder, const uint8_t* panel, unsigned row,
                                              unsigned block, const HalfStep* steps, uint32_t (&halves)[16]) {
  const unsigned from = 4 * (row / 4 + 4 * (block & 1)) + block / 2;
  constexpr unsigned kBits = Decoder::kBits;
  uint32_t words[kBits], levels[8];
#pragma unroll
  for (unsigned k = 0; k < kBits; ++k)
    words[k] = *reinterpret_cast<const uint32_t*>(panel + 512 * k + 16 * from + 4 * (row % 4));
  const uint32_t scales = *reinterpret_cast<const uint16_t*>(panel + 512 * kBits + 2 * from);
  const HalfStep step = steps[(scales >> (4 * (row % 4))) & 15];
  decoder.bytes(words, levels);
#pragma unroll
  for (unsigned i = 0; i < 8; ++i) to_halves(levels[i], step, halves + 2 * i);
}

}  // namespace upg::cuda
