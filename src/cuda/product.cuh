// A product stage: y = W x for one token. The input is normed or activated and quantised by each block for itself (what
// it needs of it), then every warp multiplies its steps.
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
  int8_t* q;       // [8 steps of the widest slice][32], in the order of place_of_column()
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

__device__ inline float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

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

// A thread's columns of up to two tagged vectors.
template <uint32_t kHeld>
struct TwoVectors {
  float4 a[kHeld], b[kHeld];

  // Asks for all at once, without a look whether they are there: for the block that comes last, they are.
  __device__ __forceinline__ void ask(const float* from, uint32_t stride, uint32_t count, const Columns& columns,
                                      uint32_t tag) {
    // 0 with the tag, where there is nothing to wait for.
    const float zero = __uint_as_float(tag);
    const uint32_t of_a = count > 0 ? columns.there : 0, of_b = count > 1 ? columns.there : 0;
    const float *at_a = first_of(from, columns), *at_b = first_of(from + stride, columns);
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) {
      a[i] = make_float4(zero, zero, zero, zero);
      if (i < of_a) a[i] = load_tagged(at_a + Columns::kStride * i);
    }
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) {
      b[i] = make_float4(zero, zero, zero, zero);
      if (i < of_b) b[i] = load_tagged(at_b + Columns::kStride * i);
    }
  }
  // Asks again only for what is late: what is asked for takes memory's time from blocks that still multiply.
  __device__ __forceinline__ void wait(const float* from, uint32_t stride, const Columns& columns, uint32_t tag,
                                       Patience& patience) {
    const float *at_a = first_of(from, columns), *at_b = first_of(from + stride, columns);
    patience.renew();
    uint32_t late = 0;
#pragma unroll 1
    do {
      late = 0;
#pragma unroll
      for (uint32_t i = 0; i < kHeld; ++i) late |= ask_again(a[i], at_a + Columns::kStride * i, tag);
#pragma unroll
      for (uint32_t i = 0; i < kHeld; ++i) late |= ask_again(b[i], at_b + Columns::kStride * i, tag);
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

  __device__ Quantized(const Scratch& scratch, bool plain_too, uint32_t begin, const Columns& columns)
      : q(scratch.q + static_cast<int32_t>(columns.first - begin)),
        zero(scratch.zero + static_cast<int32_t>(columns.first / 32 - begin / 32)),
        plain(plain_too ? scratch.x + columns.first : nullptr),
        order(columns.first % 8 == 0 ? 0x5140 : 0x3726),
        begins(columns.first % 32 == 0) {}

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

// A thread's columns of the residual stream, as many as fit its registers, on their way to the input of a product.
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
  __device__ __forceinline__ float add(const float* stream, const TwoVectors<kHeld>& parts, float* next_stream) {
    float power = 0;
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) {
      x[i] = make_float4(0, 0, 0, 0);
      if (i >= columns.there) continue;
      const uint32_t c = columns.first + Columns::kStride * i;
      x[i] = sum_of(sum_of(*reinterpret_cast<const float4*>(stream + c), parts.a[i]), parts.b[i]);
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
    TwoVectors<kHeld> parts;
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

// What stages left, their sum or gates times what they gate, quantised into scratch. `meanwhile` is done while words
// come.
template <uint32_t kHeld, typename F>
__device__ inline void prepare_others(const Stage& s, uint32_t first_block, uint32_t end_block, const Scratch& scratch,
                                      const Pass& pass, Patience& patience, F meanwhile) {
  const bool swiglu = s.input == Input::kSwiglu, plain = s.w.residual_values != nullptr;
  const float* from = s.in.data;
  const uint32_t stride = swiglu ? s.w.cols : s.in.stride, count = swiglu ? 2 : s.in.count;
  const uint32_t last = 32 * end_block, end = min(last, s.w.cols), tag = tag_of(s.in_layer, pass.layers_before);
  for (uint32_t begin = 32 * first_block; begin < last; begin += kHeld * Columns::kStride) {
    const Columns columns(begin, end, last);
    TwoVectors<kHeld> parts;
    parts.ask(from, stride, count, columns, tag);
    if (begin == 32 * first_block) meanwhile();
    const Quantized quantized(scratch, plain, 32 * first_block, columns);
    parts.wait(from, stride, columns, tag, patience);
    const auto of_warp = [&](uint32_t i) { return i < kHeld && i < columns.of_warp; };
    const auto at = [&](uint32_t i) {
      if (i >= kHeld) return make_float4(0, 0, 0, 0);
      const float4 a = parts.a[i], b = parts.b[i];
      return swiglu ? product_of(a, b) : sum_of(untagged(a), untagged(b));
    };
#pragma unroll
    for (uint32_t i = 0; i < kHeld; i += 2)
      if (of_warp(i)) quantized.put(i, {at(i), at(i + 1)}, {true, of_warp(i + 1)}, columns.there);
  }
}

// One step: acc[i] += row i of this lane's four times its block of activations q [32], times kSumFactor.
template <typename Decoder>
__device__ __forceinline__ void multiply_step(const Decoder& decoder, uint32_t lane, const uint8_t* step,
                                              const uint4* q, uint32_t zero, const float2* steps, float (&acc)[4]) {
  constexpr unsigned kBits = Decoder::kBits;
  uint4 words[kBits];
#pragma unroll
  for (unsigned k = 0; k < kBits; ++k) words[k] = reinterpret_cast<const uint4*>(step + 512 * k)[lane];
  const uint8_t* places = step + 512 * kBits + 2 * lane;
  const float2 of_rows[2] = {steps[places[0]], steps[places[1]]};
  const uint4 q0 = q[0], q1 = q[1];
  const uint32_t b[8] = {q0.x, q0.y, q0.z, q0.w, q1.x, q1.y, q1.z, q1.w};
#pragma unroll
  for (unsigned row = 0; row < 4; ++row) {
    uint32_t of_row[kBits];
#pragma unroll
    for (unsigned k = 0; k < kBits; ++k)
      of_row[k] = row == 0 ? words[k].x : row == 1 ? words[k].y : row == 2 ? words[k].z : words[k].w;
    int sum = static_cast<int>(zero);
    decoder.row(of_row, [&](unsigned i, uint32_t levels) {
      sum = __dp4a(static_cast<int>(levels), static_cast<int>(b[i]), sum);
    });
    const float scale = row % 2 == 0 ? of_rows[row / 2].x : of_rows[row / 2].y;
    acc[row] = fmaf(__int_as_float(sum) - __uint_as_float(zero), scale, acc[row]);
  }
}

template <typename Decoder>
__device__ __forceinline__ void multiply_share(const TrellisMatrix& w, const Share& share, uint32_t warp,
                                               WeightStream& stream, const Scratch& scratch) {
  constexpr uint32_t kStep = step_bytes(Decoder::kBits);
  const uint32_t lane = thread_now() % 32;
  const uint32_t g = lane / 4, t = lane % 4;
  const Decoder decoder(w, scratch.one, 0);
  const uint32_t n = share.slice_steps();
  const uint32_t block = 2 * t + g / 4;  // this lane's own of each step
  const bool pairs = unit_steps(scratch.slot_bytes, Decoder::kBits) == 2;
  uint32_t slot = warp * scratch.sum_slots;
  uint32_t panel = share.begin / n, in_slice = share.begin - panel * n;
  for (uint32_t left = share.end - share.begin; left > 0;) {
    // The rest of a panel, or of the share.
    const uint32_t now = min(left, n - in_slice);
    const int8_t* q = scratch.q + 32 * (kStepBlocks * in_slice + block);
    const uint32_t* zero = scratch.zero + kStepBlocks * in_slice + block;
    float acc[4] = {0, 0, 0, 0};
    const auto multiply = [&](uint32_t steps) {
      const uint8_t* step = stream.front();
#pragma unroll
      for (uint32_t i = 0; i < steps; ++i)
        multiply_step(decoder, lane, step + kStep * i, reinterpret_cast<const uint4*>(q + 32 * kStepBlocks * i),
                      zero[kStepBlocks * i], scratch.steps, acc);
      stream.pop();
      q += 32 * kStepBlocks * steps;
      zero += kStepBlocks * steps;
    };
    uint32_t of_panel = now;
#pragma unroll 1
    for (; pairs && of_panel >= 2; of_panel -= 2) multiply(2);
#pragma unroll 1
    for (; of_panel > 0; --of_panel) multiply(1);
#pragma unroll
    for (unsigned r = 0; r < 4; ++r) {
      acc[r] += __shfl_xor_sync(0xffffffffu, acc[r], 1);
      acc[r] += __shfl_xor_sync(0xffffffffu, acc[r], 2);
      acc[r] += __shfl_xor_sync(0xffffffffu, acc[r], 16);
    }
    if (t == 0 && g < 4)
      reinterpret_cast<float4*>(scratch.sums + 16 * slot)[g] = make_float4(acc[0], acc[1], acc[2], acc[3]);
    if (lane == 0 && in_slice == 0) {
      scratch.spans[panel].slot = slot;
      scratch.spans[panel].second = warp + 1;
    }
    if (lane == 0 && in_slice + now == n) scratch.spans[panel].last = warp;
    ++slot;
    ++panel;
    in_slice = 0;
    left -= now;
  }
}

// Row r of the residual times the input, by one warp: lanes take 32 entries at a time and add up their distances.
__device__ inline float residual_row(const TrellisMatrix& w, uint32_t row, const float* x) {
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t end = __ldg(w.residual_row_pointers + row + 1);
  uint32_t column = 0;
  float sum = 0;
  for (uint32_t k = __ldg(w.residual_row_pointers + row); k < end; k += 32) {
    const bool valid = k + lane < end;
    uint32_t at = valid ? __ldg(w.residual_deltas + k + lane) : 0;
#pragma unroll
    for (unsigned d = 1; d < 32; d *= 2) {
      const uint32_t before = __shfl_up_sync(0xffffffffu, at, d);
      if (lane >= d) at += before;
    }
    const int value = valid ? __ldg(w.residual_values + k + lane) : -128;
    if (value != -128) sum += static_cast<float>(value) * x[column + at];
    column += __shfl_sync(0xffffffffu, at, 31);
  }
  return warp_sum(sum) * __ldg(w.residual_scales + row);
}

__device__ inline bool likelier(const Best& a, const Best& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// The largest of a block's candidates, in thread 0.
__device__ inline Best block_best(Best best, const Scratch& scratch) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) {
    const Best other = {__shfl_xor_sync(0xffffffffu, best.logit, d), __shfl_xor_sync(0xffffffffu, best.token, d)};
    if (likelier(other, best)) best = other;
  }
  auto* all = reinterpret_cast<Best*>(scratch.sums);
  __syncthreads();
  if (thread_now() % 32 == 0) all[thread_now() / 32] = best;
  __syncthreads();
  if (thread_now() == 0)
    for (unsigned i = 1; i < kWarps; ++i)
      if (likelier(all[i], best)) best = all[i];
  return best;
}

// Returns true in all threads if one has waited too long. `meanwhile` is done while words come.
template <typename F>
__device__ inline bool product_stage(const Stage& s, WeightStream& stream, const Scratch& scratch, Pass& pass,
                                     Patience& patience, F meanwhile) {
  const TrellisMatrix& w = s.w;
  const uint32_t warp = share_of_warp(), lane = thread_now() % 32;
  Share share = share_of(s.deal, blockIdx.x, warp);
  const uint32_t rows_of_block = 16 * (share.panel_end - share.panel_begin);
  float first_row_scale = 0;
  const auto while_words_come = [&] {
    // Of this thread's first row, asked for long before it is needed.
    const uint32_t thread = thread_now();
    first_row_scale = load_early(w.row_scales + 16 * share.panel_begin + thread, thread < rows_of_block);
    if (thread < 256) scratch.steps[thread] = make_float2(w.block_steps[thread % 16], w.block_steps[thread / 16]);
    meanwhile();
  };
  const uint32_t first_block = kStepBlocks * share.slice_begin, end_block = kStepBlocks * share.slice_end;
  const bool normed = s.input == Input::kNorm;
  if (!normed) {
    if (32 * (end_block - first_block) <= 2 * Columns::kStride) {
      prepare_others<2>(s, first_block, end_block, scratch, pass, patience, while_words_come);
    } else {
      prepare_others<5>(s, first_block, end_block, scratch, pass, patience, while_words_come);
    }
  } else if (!s.same_input || !pass.has_stream) {
    prepare_normed(s, first_block, end_block, scratch, pass, patience, while_words_come);
  } else {
    while_words_come();
  }
  __syncthreads();
  if (uniform(patience.exhausted())) return true;
  share.slice_begin = uniform(share.slice_begin);
  share.slice_end = uniform(share.slice_end);
  share.begin = uniform(share.begin);
  share.end = uniform(share.end);
  if (normed) {
    if (s.next_stream != nullptr) keep_stream(s, scratch, pass);
    if (thread_now() == 0) pass.has_stream = true;  // as all know before they meet again
  }

  if (share.end > share.begin) {
    with_rows(uniform(w.bits), uniform(w.differences),
              [&](auto decoder) { multiply_share<typename decltype(decoder)::type>(w, share, warp, stream, scratch); });
  } else if (lane < 16) {
    scratch.sums[16 * warp * scratch.sum_slots + lane] = 0;  // it may be between two that have steps of a panel
  }
  __syncthreads();
  // A row's sum over the warps that had steps of its panel, in their order.
  const bool logits = s.best != nullptr;  // for the host
  Best best = {-INFINITY, 0x7fffffff};
  float* out = s.out + static_cast<uint64_t>(share.slice) * 16 * w.panels;
  const uint32_t tag = tag_of(s.out_layer, pass.layers_before), gates = s.gates;
  // With a residual to come, words are not yet what they shall be.
  const bool more_to_come = w.residual_values != nullptr;
  const uint32_t first_tag = more_to_come ? tag ^ 1 : tag;
  const auto put = [&](uint32_t row, float y, uint32_t its_tag) {
    if (logits) {
      __stcg(out + row, y);
    } else {
      store_tagged(out + row, its_tag == tag && row < gates ? silu(y) : y, its_tag);
    }
  };
  const uint32_t first_row = thread_now();
  for (uint32_t i = first_row; i < rows_of_block; i += kThreads) {
    const Span span = scratch.spans[i / 16];
    float sum = scratch.sums[16 * span.slot + i % 16];
#pragma unroll 1
    for (uint32_t v = span.second; v <= span.last; v += 4) {
      float of_warps[4];
#pragma unroll
      for (uint32_t k = 0; k < 4; ++k)
        of_warps[k] = v + k <= span.last ? scratch.sums[16 * (v + k) * scratch.sum_slots + i % 16] : 0.0f;
#pragma unroll
      for (const float x : of_warps) sum += x;
    }
    const uint32_t row = 16 * share.panel_begin + i;
    const float y = sum * (1 / kSumFactor) * (i == first_row ? first_row_scale : __ldg(w.row_scales + row));
    put(row, y, first_tag);
    if (logits && row < w.rows && likelier({y, static_cast<int32_t>(row)}, best)) best = {y, static_cast<int32_t>(row)};
  }
  if (more_to_come) {
    __syncthreads();
    best = {-INFINITY, 0x7fffffff};
    for (uint32_t i = warp; i < rows_of_block; i += kWarps) {
      const uint32_t row = 16 * share.panel_begin + i;
      const float more = row < w.rows ? residual_row(w, row, scratch.x) : 0.0f;
      if (lane == 0) {
        const float y = __ldcg(out + row) + more;
        put(row, y, tag);
        if (row < w.rows && likelier({y, static_cast<int32_t>(row)}, best)) best = {y, static_cast<int32_t>(row)};
      }
    }
    __syncthreads();  // the next stage writes scratch.x before it meets
  }
  if (logits) {
    best = block_best(best, scratch);
    if (thread_now() == 0) {
      __stcg(&s.best[blockIdx.x].logit, best.logit);
      __stcg(&s.best[blockIdx.x].token, best.token);
    }
  }
  return false;
}

}  // namespace upg::cuda
