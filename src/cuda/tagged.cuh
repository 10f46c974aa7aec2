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

/// Asks for x again if not all of its words have come, and says so: 0 if they have. In so many words because who waits
/// looks again and again, and what the compiler made of them took four times as many instructions.
__device__ __forceinline__ uint32_t ask_again(float4& x, const float* from, uint32_t tag) {
  uint32_t late;
  asm volatile(
      "{\n"
      ".reg .pred is_late;\n"
      ".reg .b32 first, second;\n"
      "lop3.b32 first, %0, %1, %6, 0x7e;\n"  // (x.x ^ tag) | (x.y ^ tag)
      "lop3.b32 second, %2, %3, %6, 0x7e;\n"
      "lop3.b32 %4, first, second, 1, 0xa8;\n"  // (first | second) & 1
      "setp.ne.u32 is_late, %4, 0;\n"
      "@is_late ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%5];\n"
      "}"
      : "+f"(x.x), "+f"(x.y), "+f"(x.z), "+f"(x.w), "=r"(late)
      : "l"(from), "r"(tag)
      : "memory");
  return late;
}

/// How long a thread waits for others before it gives up, which `gave_up` in shared memory then says.
class Patience {
 public:
  __device__ Patience(State* state, bool* gave_up) : state_(state), gave_up_(gave_up) {}
  /// A wait begins. Nothing of the one before need be kept.
  __device__ void renew() { left_ = kMostLooks; }
  /// Whether to look once more.
  __device__ bool more() {
    if (--left_ != 0) return true;
    atomicExch(&state_->error, 1u);
    *gave_up_ = true;
    return false;
  }
  /// Whether a thread of the block has given up before the block last met.
  __device__ bool exhausted() const { return *static_cast<volatile bool*>(gave_up_); }

 private:
  static constexpr uint32_t kMostLooks = 1u << 23;  // some seconds: each goes to the L2 cache and back
  State* state_;
  bool* gave_up_;
  uint32_t left_ = 0;
};

/// The numbers from [4] of a layer, once its words are there.
__device__ inline float4 wait_tagged(const float* from, uint32_t tag, Patience& patience) {
  patience.renew();
  float4 x = load_tagged(from);
#pragma unroll 1
  while (ask_again(x, from, tag) != 0 && patience.more()) {
  }
  return untagged(x);
}

}  // namespace upg::cuda
