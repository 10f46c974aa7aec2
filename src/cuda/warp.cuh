// What the lanes of a warp have together, in all of them.
#pragma once

#include <stdint.h>

namespace upg::cuda {

/// threadIdx.x, read anew: what follows from it is not worked out long before and kept.
__device__ __forceinline__ uint32_t thread_now() {
  uint32_t thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
}

template <typename T>
__device__ inline T warp_sum(T x) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}
__device__ inline float warp_max(float x) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
  return x;
}
__device__ inline uint32_t warp_max(uint32_t x) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x = max(x, __shfl_xor_sync(0xffffffffu, x, d));
  return x;
}

}  // namespace upg::cuda
