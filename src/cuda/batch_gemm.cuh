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

// Four levels + 128 to halves: two registers of two.
__device__ __forceinline__ void to_halves(uint32_t biased, __half2 step, uint32_t* out) {
  __half2 low, high;
  biased_to_halves(biased, low, high);
  out[0] = bits_of(__hmul2(low, step));
  out[1] = bits_of(__hmul2(high, step));
}

/// One row's block as halves, in the order of place_of_column(), two to a register, by a decoder of levels + 128.
/// `panel` is the panel's step, `steps` [16] the block steps.
template <typename Decoder>
__device__ __forceinline__ void decode_halves(const Decoder& decoder, const uint8_t* panel, unsigned row,
                                              unsigned block, const __half2* steps, uint32_t (&halves)[16]) {
  const unsigned from = 4 * (row / 4 + 4 * (block & 1)) + block / 2;
  constexpr unsigned kBits = Decoder::kBits;
  uint32_t words[kBits], levels[8];
#pragma unroll
  for (unsigned k = 0; k < kBits; ++k)
    words[k] = *reinterpret_cast<const uint32_t*>(panel + 512 * k + 16 * from + 4 * (row % 4));
  const uint32_t scales = *reinterpret_cast<const uint16_t*>(panel + 512 * kBits + 2 * from);
  const __half2 step = steps[(scales >> (4 * (row % 4))) & 15];
  decoder.bytes(words, levels);
#pragma unroll
  for (unsigned i = 0; i < 8; ++i) to_halves(levels[i], step, halves + 2 * i);
}

}  // namespace upg::cuda
