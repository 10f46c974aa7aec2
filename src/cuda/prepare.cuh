// What comes before a product: each block waits for the words of what it needs of the input, norms them or multiplies
// them by their gates, and quantises them for itself.
#pragma once

#include "cuda/stream.cuh"
#include "cuda/tagged.cuh"
#include "cuda/trellis.cuh"
#include "cuda/warp.cuh"

namespace upg::cuda {

/// Where the sums of a panel are: a slot of the first warp that had steps of it, then the first slots of those from
/// `second` to `last`.
struct alignas(16) Span {
  uint32_t slot, second, last;
};

constexpr uint32_t kStepPairBytes = 256 * sizeof(float2);

/// Shared memory of a block besides the rings.
struct Scratch {
  int8_t* q;  // [steps of the widest slice][2][8 blocks][16]: halves of a step's blocks, so that a warp's lanes meet
              // no bank twice; a block in the order of place_of_column()
  uint32_t* zero;  // [the same blocks]: zero_of() their scales
  float* x;        // [columns], only where some matrix has a residual
  float* stream;   // [hidden] the residual stream, once this launch has had it: each block adds up all of it
  float* sums;     // [kWarps][slots][16]
  float* attend;   // [kAttendFloats], where q, zero and sums are: between products
  Span* spans;     // [most panels of a block]
  uint32_t sum_slots;
  uint32_t slot_bytes;  // of a ring
  float* reduce;        // [kWarps]
  float2* steps;        // [256] of the matrix at hand: for a byte of two places, both steps
  uint32_t one;         // 1, for decoders
};

// What a block knows of its token, in shared memory: in registers it would be in the way of what stages need, and what
// is spilled comes back from the L2 cache, as the shared memory leaves next to nothing for the nearer one.
struct Pass {
  uint32_t position;
  uint32_t layers_before;  // see State
  uint32_t kept;           // columns of the residual stream that each block leaves for the next launch
  uint32_t rounds;         // of waiting for all blocks
  bool has_stream;         // scratch.stream is there
  bool gave_up;            // see Patience
};

// A constant, asked for now: loads by __ldg() are moved to where they are used, which may be a long wait for memory
// that weights keep busy.
__device__ inline float load_early(const float* p, bool valid) {
  float x = 0;
  if (valid) asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(x) : "l"(p));
  return x;
}

__device__ inline float4 load4_early(const float* p, bool valid) {
  float4 x = make_float4(0, 0, 0, 0);
  if (valid)
    asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "l"(p));
  return x;
}

__device__ inline float4 load4(const float* p, bool valid) {
  return valid ? __ldg(reinterpret_cast<const float4*>(p)) : make_float4(0, 0, 0, 0);
}

// A thread's columns of a slice: four from `first` on, and from each kStride columns on.
struct Columns {
  static constexpr uint32_t kStride = 4 * kThreads;
  uint32_t first;
  uint32_t there;    // how many times four are below the end
  uint32_t of_warp;  // of the warp, with what is padded to whole steps: these are quantised

  /// [begin, end) but for what is padded from `end` to `last`, the end of a step.
  __device__ Columns(uint32_t begin, uint32_t end, uint32_t last)
      : first(begin + 4 * thread_now()),
        there(times(first, end)),
        of_warp(times(first - (first - begin) % 128, last)) {}

 private:
  static __device__ uint32_t times(uint32_t from, uint32_t end) {
    return from < end ? (end - from + kStride - 1) / kStride : 0;
  }
};

// A thread's columns of up to kVectors tagged vectors.
template <uint32_t kVectors, uint32_t kHeld>
struct TaggedColumns {
  float4 x[kVectors][kHeld];

  // Asks for all at once, without a look whether they are there: for the block that comes last, they are.
  __device__ __forceinline__ void ask(const float* from, uint32_t stride, uint32_t count, const Columns& columns,
                                      uint32_t tag) {
    // 0 with the tag, where there is nothing to wait for.
    const float zero = __uint_as_float(tag);
#pragma unroll
    for (uint32_t v = 0; v < kVectors; ++v) {
      const float* at = first_of(from + v * stride, columns);
      const uint32_t there = v < count ? columns.there : 0;
#pragma unroll
      for (uint32_t i = 0; i < kHeld; ++i) {
        x[v][i] = make_float4(zero, zero, zero, zero);
        if (i < there) x[v][i] = load_tagged(at + Columns::kStride * i);
      }
    }
  }
  // Asks again only for what is late: what is asked for takes memory's time from blocks that still multiply.
  __device__ __forceinline__ void wait(const float* from, uint32_t stride, const Columns& columns, uint32_t tag,
                                       Patience& patience) {
    const float* at[kVectors];
#pragma unroll
    for (uint32_t v = 0; v < kVectors; ++v) at[v] = first_of(from + v * stride, columns);
    patience.renew();
    uint32_t late;
#pragma unroll 1
    do {
      late = 0;
#pragma unroll
      for (uint32_t v = 0; v < kVectors; ++v)
#pragma unroll
        for (uint32_t i = 0; i < kHeld; ++i) late |= ask_again(x[v][i], at[v] + Columns::kStride * i, tag);
    } while (late != 0 && patience.more());
  }

 private:
  // Worked out once: the rest of each address is a constant of its instruction.
  static __device__ __forceinline__ const float* first_of(const float* from, const Columns& columns) {
    const float* first = from + columns.first;
    asm("" : "+l"(first));
    return first;
  }
};

// Bits of the float 1.5 * 2^23: an integer added to them adds to the float, so sums that start here are floats already.
constexpr int kFloatZero = 0x4b400000;
constexpr float kFloatZeroValue = 12582912.0f;
// Where the sums of a block of activations start: as above times its scale, a power of two, so that they come out
// scaled. All of them are smaller by this factor, or a float could not hold the largest.
constexpr int kSumShift = 20;
constexpr float kSumFactor = 0x1p-20f;
__device__ inline uint32_t zero_of(float scale) {
  return __float_as_uint(scale) + static_cast<uint32_t>(kFloatZero) - ((127u + kSumShift) << 23);
}

__device__ __forceinline__ float largest_of(const float4& x) {
  return fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
}

// The step of a block of 32 activations, as in kernels::QuantizeArgs, and its inverse; both 0 for zeros.
struct Step32 {
  float scale, inverse;
};
// The least power of two that is not below largest / 127, whose fraction is 0x7e0000 and whose exponent is 6, is 2^-6
// times that of which this has the exponent; the lower 16 bits do not matter.
__device__ __forceinline__ uint32_t exponent_of(float largest) {
  return __float_as_uint(largest) + (0x7fffffu - 0x7e0000u);
}
__device__ __forceinline__ Step32 step_of_exponent(uint32_t exponent) {
  const uint32_t bits = exponent & 0x7f800000u;
  const bool zero = bits < 27u << 23;  // below 2^-100
  return {zero ? 0.0f : __uint_as_float(bits - (6u << 23)), zero ? 0.0f : __uint_as_float((260u << 23) - bits)};
}
__device__ inline Step32 step_of(float largest) { return step_of_exponent(exponent_of(largest)); }

// Where a thread's columns of a slice go, quantised.
struct Quantized {
  int8_t* q;       // of the first columns, in the order of place_of_column()
  uint32_t* zero;  // of their block
  float* plain;    // as they were, or nullptr
  uint32_t order;  // of bytes
  bool begins;     // a block of 32

  /// `begin` is a step's.
  __device__ Quantized(const Scratch& scratch, bool plain_too, uint32_t begin, const Columns& columns)
      : q(scratch.q + static_cast<int32_t>(place_of_first(columns.first) - begin)),
        zero(scratch.zero + static_cast<int32_t>(columns.first / 32 - begin / 32)),
        plain(plain_too ? scratch.x + columns.first : nullptr),
        order(columns.first % 8 == 0 ? 0x5140 : 0x3726),
        begins(columns.first % 32 == 0) {}

  static_assert(Columns::kStride % (32 * kStepBlocks) == 0, "a thread's columns have the same place in all steps");
  static __device__ uint32_t place_of_first(uint32_t column) {
    constexpr uint32_t kHalf = 16 * kStepBlocks;
    return column / (2 * kHalf) * (2 * kHalf) + column / 16 % 2 * kHalf + column / 32 % kStepBlocks * 16 + column % 16;
  }

  // kCount times four columns, from kStride times i after the first on, as in kernels::QuantizeArgs: all lanes of a
  // warp come here together, of whose columns some may not be there at all; of this lane's some are not kept as they
  // were.
  template <uint32_t kCount>
  __device__ __forceinline__ void put(uint32_t i, const float4 (&x)[kCount], const Step32 (&steps)[kCount],
                                      const bool (&of_warp)[kCount], uint32_t there) const {
    uint32_t mine[kCount], other[kCount];
#pragma unroll
    for (uint32_t k = 0; k < kCount; ++k) {
      // Rounded in the float's lowest byte. A lane's columns are every other byte of eight, the next lane's the others:
      // they exchange, so that each has four bytes that lie together.
      const auto rounded = [&](float value) { return __float_as_uint(fmaf(value, steps[k].inverse, kFloatZeroValue)); };
      mine[k] = lookup(lookup(rounded(x[k].x), rounded(x[k].y), 0x0040),
                       lookup(rounded(x[k].z), rounded(x[k].w), 0x0040), 0x5410);
    }
#pragma unroll
    for (uint32_t k = 0; k < kCount; ++k) other[k] = __shfl_xor_sync(0xffffffffu, mine[k], 1);
#pragma unroll
    for (uint32_t k = 0; k < kCount; ++k) {
      if (!of_warp[k]) continue;
      *reinterpret_cast<uint32_t*>(q + Columns::kStride * (i + k)) = lookup(mine[k], other[k], order);
      if (begins) zero[Columns::kStride / 32 * (i + k)] = zero_of(steps[k].scale);
      if (plain != nullptr && i + k < there) *reinterpret_cast<float4*>(plain + Columns::kStride * (i + k)) = x[k];
    }
  }
  // The same of two, whose steps follow from them: eight lanes have a block of 32.
  __device__ __forceinline__ void put(uint32_t i, const float4 (&x)[2], const bool (&of_warp)[2],
                                      uint32_t there) const {
    uint32_t both = lookup(exponent_of(largest_of(x[0])), exponent_of(largest_of(x[1])), 0x7632);
#pragma unroll
    for (int d = 4; d > 0; d /= 2) both = __vmaxu2(both, __shfl_xor_sync(0xffffffffu, both, d));
    put(i, x, {step_of_exponent(both << 16), step_of_exponent(both)}, of_warp, there);
  }
};

__device__ inline float4 sum_of(const float4& a, const float4& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}
__device__ inline float4 product_of(const float4& a, const float4& b) {
  return {a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w};
}

// The sum of a value of each thread, in all threads.
__device__ inline float block_sum(float x, float* reduce) {
  x = warp_sum(x);
  if (const uint32_t thread = thread_now(); thread % 32 == 0) reduce[thread / 32] = x;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (uint32_t i = 0; i < kWarps; i += 4) {
    const float4 of_warps = *reinterpret_cast<const float4*>(reduce + i);
    sum += (of_warps.x + of_warps.y) + (of_warps.z + of_warps.w);
  }
  return sum;
}

// A thread's columns of the residual stream, as many as fit its registers, on their way to the input of a product. What
// follows the sum of all squares is what everybody waits for: so the largest of each block are found before it.
template <uint32_t kHeld>
struct NormedColumns {
  static constexpr uint32_t kAll = kHeld * Columns::kStride;  // of a block

  const Columns columns;
  const Quantized quantized;
  bool of_slice[kHeld];  // whether this warp's are there, and of the slice that is to be multiplied
  float4 x[kHeld], norm[kHeld];
  float largest[kHeld];  // of the products of the two, of blocks of 32

  // From `begin` on; s.norm is asked for.
  __device__ __forceinline__ NormedColumns(const Stage& s, const Scratch& scratch, uint32_t first_block,
                                           uint32_t end_block, uint32_t begin)
      : columns(begin, s.w.cols, 32 * kStepBlocks * s.w.steps),
        quantized(scratch, s.w.residual_values != nullptr, 32 * first_block, columns) {
    const float* weights = s.norm + columns.first;
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) {
      const uint32_t block = columns.first / 32 + Columns::kStride / 32 * i;  // a warp's are of one step
      of_slice[i] = i < columns.of_warp && block >= first_block && block < end_block;
      norm[i] = load4_early(weights + Columns::kStride * i, i < columns.there);
    }
  }

  // The stream as it was, and what the product before left, make up the new stream. Returns the sum of its squares.
  __device__ __forceinline__ float add(const float* stream, const TaggedColumns<2, kHeld>& parts, float* next_stream) {
    float power = 0;
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) {
      x[i] = make_float4(0, 0, 0, 0);
      if (i >= columns.there) continue;
      const uint32_t c = columns.first + Columns::kStride * i;
      x[i] = sum_of(sum_of(*reinterpret_cast<const float4*>(stream + c), parts.x[0][i]), parts.x[1][i]);
      *reinterpret_cast<float4*>(next_stream + c) = x[i];  // read by this thread, or when all have met
      power += x[i].x * x[i].x + x[i].y * x[i].y + x[i].z * x[i].z + x[i].w * x[i].w;
    }
    return power;
  }
  __device__ __forceinline__ void read(const float* stream) {
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) {
      x[i] = make_float4(0, 0, 0, 0);
      if (i < columns.there) x[i] = *reinterpret_cast<const float4*>(stream + columns.first + Columns::kStride * i);
    }
  }
  __device__ __forceinline__ void find_largest() {
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) largest[i] = largest_of(product_of(x[i], norm[i]));
#pragma unroll
    for (int d = 4; d > 0; d /= 2)
#pragma unroll
      for (uint32_t i = 0; i < kHeld; ++i) largest[i] = fmaxf(largest[i], __shfl_xor_sync(0xffffffffu, largest[i], d));
  }
  __device__ __forceinline__ void quantize(float factor) const {
    float4 y[kHeld];
    Step32 steps[kHeld];
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) {
      y[i] = make_float4(x[i].x * factor * norm[i].x, x[i].y * factor * norm[i].y, x[i].z * factor * norm[i].z,
                         x[i].w * factor * norm[i].w);
      steps[i] = step_of(largest[i] * factor);
    }
    quantized.put(0, y, steps, of_slice, columns.there);
  }
};

// The norm of the residual stream, to which what the product before left is added first, quantised into scratch.
// `meanwhile` is done while words come.
template <typename F>
__device__ inline void prepare_normed(const Stage& s, uint32_t first_block, uint32_t end_block, const Scratch& scratch,
                                      const Pass& pass, Patience& patience, F meanwhile) {
  constexpr uint32_t kHeld = 3;
  using Held = NormedColumns<kHeld>;
  const uint32_t cols = s.w.cols, tag = tag_of(s.in_layer, pass.layers_before);
  const auto add = [&](Held& held, auto while_waiting) {
    TaggedColumns<2, kHeld> parts;
    parts.ask(s.in.data, s.in.stride, s.in.count, held.columns, tag);
    while_waiting();
    const float* stream = pass.has_stream ? scratch.stream : s.stream;
    parts.wait(s.in.data, s.in.stride, held.columns, tag, patience);
    return held.add(stream, parts, scratch.stream);
  };
  const auto factor_of = [&](float power) {
    return __frsqrt_rn(fmaf(block_sum(power, scratch.reduce), s.one_over_cols, s.epsilon));
  };
  Held held(s, scratch, first_block, end_block, 0);
  float power = add(held, meanwhile);
  held.find_largest();
  if (cols <= Held::kAll) {
    held.quantize(factor_of(power));
    return;
  }
  for (uint32_t begin = Held::kAll; begin < cols; begin += Held::kAll) {
    Held more(s, scratch, first_block, end_block, begin);
    power += add(more, [] {});
  }
  const float factor = factor_of(power);
  held.quantize(factor);
  for (uint32_t begin = Held::kAll; begin < cols; begin += Held::kAll) {
    Held more(s, scratch, first_block, end_block, begin);
    more.read(scratch.stream);
    more.find_largest();
    more.quantize(factor);
  }
}

// Each block leaves a part of the new residual stream for the next launch.
__device__ inline void keep_stream(const Stage& s, const Scratch& scratch, const Pass& pass) {
  const uint32_t begin = pass.kept * blockIdx.x, end = min(begin + pass.kept, s.w.cols);
#pragma unroll 1
  for (uint32_t c = begin + 4 * thread_now(); c < end; c += 4 * kThreads)
    __stcg(reinterpret_cast<float4*>(s.next_stream + c), *reinterpret_cast<const float4*>(scratch.stream + c));
}

// What a stage left, or gates times what they gate, quantised into scratch. `meanwhile` is done while words come.
template <uint32_t kVectors, uint32_t kHeld, typename F>
__device__ inline void prepare_others(const Stage& s, uint32_t first_block, uint32_t end_block, const Scratch& scratch,
                                      const Pass& pass, Patience& patience, F meanwhile) {
  const bool plain = s.w.residual_values != nullptr;
  const float* from = s.in.data;
  const uint32_t stride = s.w.cols;
  const uint32_t last = 32 * end_block, end = min(last, s.w.cols), tag = tag_of(s.in_layer, pass.layers_before);
  for (uint32_t begin = 32 * first_block; begin < last; begin += kHeld * Columns::kStride) {
    const Columns columns(begin, end, last);
    TaggedColumns<kVectors, kHeld> parts;
    parts.ask(from, stride, kVectors, columns, tag);
    if (begin == 32 * first_block) meanwhile();
    const Quantized quantized(scratch, plain, 32 * first_block, columns);
    parts.wait(from, stride, columns, tag, patience);
    const auto of_warp = [&](uint32_t i) { return i < kHeld && i < columns.of_warp; };
    const auto at = [&](uint32_t i) {
      if (i >= kHeld) return make_float4(0, 0, 0, 0);
      return kVectors == 2 ? product_of(parts.x[0][i], parts.x[kVectors - 1][i]) : untagged(parts.x[0][i]);
    };
#pragma unroll
    for (uint32_t i = 0; i < kHeld; i += 2)
      if (of_warp(i)) quantized.put(i, {at(i), at(i + 1)}, {true, of_warp(i + 1)}, columns.there);
  }
}

}  // namespace upg::cuda
