// Numbers that blocks of one launch leave for each other. A word says by itself whether it has come: its lowest bit,
// which the number gives up, is the tag of the layer that wrote it, and the tags of following layers differ. So who
// reads them waits for what it reads and nothing else, and no store need be ordered with another. (Messages with their
// flags inside, as in NCCL's "LL" protocol.)
//
// That asks for two things: each layer writes all words of a buffer, and a layer writes none before all blocks have
// read what the layer before left there. Between two layers every block reads something that all blocks write after
// their reading.
#pragma once

#include "cuda/program.h"

namespace upg::cuda {

/// The tag of a layer's words; buffers start as zeros, which are none of the first layer's.
__device__ inline uint32_t tag_of(uint32_t layer, uint32_t layers_before) { return (layers_before + layer + 1) & 1; }

__device__ inline float tagged(float x, uint32_t tag) { return __uint_as_float((__float_as_uint(x) & ~1u) | tag); }

/// The number without its tag: one of fewer bits, as a value of the cache in half precision, comes out as it was.
__device__ inline float untagged(float x) { return __uint_as_float(__float_as_uint(x) & ~1u); }
__device__ inline float4 untagged(const float4& x) {
  return {untagged(x.x), untagged(x.y), untagged(x.z), untagged(x.w)};
}

__device__ inline bool has_tag(const float4& x, uint32_t tag) {
  const uint32_t a = (__float_as_uint(x.x) ^ tag) | (__float_as_uint(x.y) ^ tag);
  const uint32_t b = (__float_as_uint(x.z) ^ tag) | (__float_as_uint(x.w) ^ tag);
  return ((a | b) & 1) == 0;
}

__device__ inline void store_tagged(float* to, float x, uint32_t tag) {
  asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(to), "f"(tagged(x, tag)) : "memory");
}

__device__ inline float4 load_tagged(const float* from) {
  float4 x;
  asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
               : "l"(from)
               : "memory");
  return x;
}

/// How long a thread waits for others before it gives up.
class Patience {
 public:
  __device__ explicit Patience(State* state) : state_(state) {}
  /// A wait begins. Nothing of the one before need be kept.
  __device__ void renew() { start_ = 0; }
  /// Whether to look once more.
  __device__ bool more() {
    if (start_ == 0) start_ = clock64();
    if (!exhausted_ && clock64() - start_ > kMostCycles) {
      atomicExch(&state_->error, 1u);
      exhausted_ = true;
    }
    return !exhausted_;
  }
  __device__ bool exhausted() const { return exhausted_; }

 private:
  static constexpr long long kMostCycles = 4000000000ll;  // two seconds
  State* state_;
  long long start_ = 0;
  bool exhausted_ = false;
};

/// The numbers from [4] of a layer, once its words are there.
__device__ inline float4 wait_tagged(const float* from, uint32_t tag, Patience& patience) {
  patience.renew();
  float4 x = load_tagged(from);
  while (!has_tag(x, tag) && patience.more()) x = load_tagged(from);
  return untagged(x);
}

}  // namespace upg::cuda
