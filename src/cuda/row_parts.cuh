// Reading what a product left in parts.
#pragma once

#include "cuda/batch.h"
#include "cuda/product.cuh"

namespace upg::cuda {

/// Elements c[i] to c[i] + 3 of a row, of kPlaces places at once: parts are asked for kRound at a time, all before the
/// first is needed.
template <unsigned kPlaces, unsigned kRound>
__device__ __forceinline__ void sum_parts(const RowParts& x, uint32_t row, const uint32_t (&c)[kPlaces],
                                          float4 (&sums)[kPlaces]) {
  const float* from = x.data + row * x.row_stride;
  for (float4& sum : sums) sum = make_float4(0, 0, 0, 0);
  for (uint32_t first = 0; first < x.count; first += kRound) {
    float4 parts[kPlaces][kRound];
#pragma unroll
    for (unsigned i = 0; i < kPlaces; ++i)
#pragma unroll
      for (unsigned k = 0; k < kRound; ++k)
        parts[i][k] = load4(from + (first + k) * x.part_stride + c[i], first + k < x.count);
#pragma unroll
    for (unsigned i = 0; i < kPlaces; ++i)
#pragma unroll
      for (unsigned k = 0; k < kRound; ++k) sums[i] = sum_of(sums[i], parts[i][k]);
  }
}
__device__ __forceinline__ float4 sum_at(const RowParts& x, uint32_t row, uint32_t c) {
  const uint32_t places[1] = {c};
  float4 sums[1];
  sum_parts<1, 8>(x, row, places, sums);
  return sums[0];
}

}  // namespace upg::cuda
