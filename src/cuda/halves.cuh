// Numbers in half precision, two to a register, and their products on the tensor cores.
#pragma once

#include <cuda_fp16.h>

#include "cuda/trellis.cuh"

namespace upg::cuda {

__device__ __forceinline__ uint32_t bits_of(__half2 x) { return *reinterpret_cast<const uint32_t*>(&x); }
__device__ __forceinline__ uint32_t pack(float low, float high) { return bits_of(__floats2half2_rn(low, high)); }

/// Four integers from -128 on, as bytes with kOffset added to them, to halves.
__device__ __forceinline__ void biased_to_halves(uint32_t biased, __half2& low, __half2& high) {
  const uint32_t magic = 0x64646464u;  // in front of a byte: 1024 + byte
  const uint32_t first = lookup(biased, magic, 0x4140u), second = lookup(biased, magic, 0x4342u);
  const __half2 bias = __floats2half2_rn(1152.0f, 1152.0f);
  low = __hsub2(*reinterpret_cast<const __half2*>(&first), bias);
  high = __hsub2(*reinterpret_cast<const __half2*>(&second), bias);
}

/// d += a b of 16 x 8 by 8 x 8 halves, in float.
__device__ __forceinline__ void multiply_halves(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(b));
}
/// d += a b of 16 x 16 by 16 x 8 halves, in float.
__device__ __forceinline__ void multiply_halves(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  multiply_halves(d, a[0], a[1], b0);
  multiply_halves(d, a[2], a[3], b1);
#endif
}

}  // namespace upg::cuda
