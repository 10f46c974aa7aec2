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
struct Span {
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
};

// A constant, asked for now: loads by __ldg() are moved to where they are used, which may be a long wait for memory
// that weights keep busy.
__device__ inline float load_early(const float* p, bool valid) {
  float x = 0;
  if (valid) asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(x) : "l"(p));
  return x;
}

__device__ inline float4 load4(const float* p, bool valid) {
  return valid ? __ldg(reinterpret_cast<const float4*>(p)) : make_float4(0, 0, 0, 0);
}

// A thread's columns, four at a time, of two tagged vectors, of which none or one may be null: columns begin +
// 4 (threadIdx.x + i kThreads) below `end`. All are asked for at once, without a look whether they are there (for the
// block that comes last, they are), then only what is late: what is asked for takes memory's time from blocks that
// still multiply.
template <uint32_t kHeld>
__device__ inline void wait_columns(const float* a, const float* b, uint32_t begin, uint32_t end, uint32_t tag,
                                    Patience& patience, float4 (&of_a)[kHeld], float4 (&of_b)[kHeld]) {
  const uint32_t first = begin + 4 * threadIdx.x;
  // 0 without the tag, where there is nothing to wait for.
#pragma unroll
  for (uint32_t i = 0; i < kHeld; ++i) {
    const bool inside = first + 4 * kThreads * i < end;
    const float of_first = __uint_as_float(a != nullptr && inside ? tag ^ 1 : tag);
    const float of_second = __uint_as_float(b != nullptr && inside ? tag ^ 1 : tag);
    of_a[i] = make_float4(of_first, of_first, of_first, of_first);
    of_b[i] = make_float4(of_second, of_second, of_second, of_second);
  }
  patience.renew();
  bool late = false;
  do {
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) {
      if (!has_tag(of_a[i], tag)) of_a[i] = load_tagged(a + first + 4 * kThreads * i);
      if (b != nullptr && !has_tag(of_b[i], tag)) of_b[i] = load_tagged(b + first + 4 * kThreads * i);
    }
    late = false;
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) late |= !has_tag(of_a[i], tag) || !has_tag(of_b[i], tag);
  } while (late && patience.more());
}

// The sum of a value of each thread, in all threads.
__device__ inline float block_sum(float x, float* reduce) {
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) reduce[threadIdx.x / 32] = x;
  __syncthreads();
  return warp_sum(threadIdx.x % 32 < kWarps ? reduce[threadIdx.x % 32] : 0.0f);
}

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

// The step of a block of 32 activations, as in kernels::QuantizeArgs, and its inverse; both 0 for zeros.
struct Step32 {
  float scale, inverse;
};
__device__ inline Step32 step_of(float largest) {
  if (!(largest >= 0x1p-100f)) return {0, 0};
  // The least power of two that is not below largest / 127, whose fraction is 0x7e0000 and whose exponent is 6.
  const uint32_t bits = ((__float_as_uint(largest) + (0x7fffffu - 0x7e0000u)) & 0x7f800000u) - (6u << 23);
  return {__uint_as_float(bits), __uint_as_float(0x7f000000u - bits)};
}

// Columns c to c + 3, quantised as in kernels::QuantizeArgs: eight lanes have a block of 32, and all lanes of a warp
// come here together. Those below `plain_columns` are kept as they were, too.
__device__ inline void quantize_columns(const Scratch& scratch, uint32_t plain_columns, uint32_t first_block,
                                        uint32_t end_block, uint32_t c, const float4& x) {
  float largest = fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
#pragma unroll
  for (int d = 4; d > 0; d /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, d));
  const Step32 step = step_of(largest);
  const float scale = step.scale, inverse = step.inverse;
  // Rounded in the float's lowest byte. A lane's columns are every other byte of eight, the next lane's the others:
  // they exchange, so that each has four bytes that lie together, in the order of place_of_column().
  const auto rounded = [&](float value) { return __float_as_uint(fmaf(value, inverse, kFloatZeroValue)); };
  const uint32_t mine =
      lookup(lookup(rounded(x.x), rounded(x.y), 0x0040), lookup(rounded(x.z), rounded(x.w), 0x0040), 0x5410);
  const uint32_t other = __shfl_xor_sync(0xffffffffu, mine, 1);
  const uint32_t word = lookup(mine, other, c % 8 == 0 ? 0x5140 : 0x3726);
  const uint32_t block = c / 32;
  if (block < first_block || block >= end_block) return;
  const uint32_t at = 32 * (block - first_block);
  *reinterpret_cast<uint32_t*>(scratch.q + at + c % 32) = word;
  if (c % 32 == 0) scratch.zero[at / 32] = zero_of(scale);
  if (c < plain_columns) *reinterpret_cast<float4*>(scratch.x + c) = x;
}

__device__ inline float4 sum_of(const float4& a, const float4& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

// The norm of the residual stream, to which what the product before left is added first, quantised into scratch.
__device__ inline void prepare_normed(const Stage& s, uint32_t first_block, uint32_t end_block, const Scratch& scratch,
                                      const Pass& pass, Patience& patience) {
  constexpr uint32_t kHeld = 3, kHeldColumns = 4 * kThreads * kHeld;
  const uint32_t cols = s.w.cols, tag = tag_of(s.in_layer, pass.layers_before);
  const float* a = s.in.count > 0 ? s.in.data : nullptr;
  const float* b = s.in.count > 1 ? s.in.data + s.in.stride : nullptr;
  const auto column = [](uint32_t round, uint32_t i) { return round + 4 * (threadIdx.x + i * kThreads); };
  float4 norm[kHeld];  // of the first round: asked for before anything is waited for
  const auto load_norm = [&](uint32_t round) {
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) norm[i] = load4(s.norm + column(round, i), column(round, i) < cols);
  };
  load_norm(0);
  const float* stream = pass.has_stream ? scratch.stream : s.stream;
  float power = 0;
  for (uint32_t round = 0; round < cols; round += kHeldColumns) {
    float4 of_a[kHeld], of_b[kHeld];
    wait_columns(a, b, round, cols, tag, patience, of_a, of_b);
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) {
      const uint32_t c = column(round, i);
      if (c >= cols) continue;
      const float4 before = *reinterpret_cast<const float4*>(stream + c);
      const float4 x = sum_of(sum_of(before, of_a[i]), of_b[i]);
      *reinterpret_cast<float4*>(scratch.stream + c) = x;  // read by this thread alone
      power += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
    }
  }
  const float inverse_size = __frsqrt_rn(block_sum(power, scratch.reduce) / static_cast<float>(cols) + s.epsilon);
  // Each block leaves a part of the new residual stream for the next launch.
  float* next_stream = s.next_stream;
  const uint32_t keep_begin = pass.kept * blockIdx.x, keep_end = min(keep_begin + pass.kept, cols);
  const uint32_t last = 32 * kStepBlocks * s.w.steps;
  const uint32_t plain_columns = s.w.residual_values != nullptr ? cols : 0;
  for (uint32_t round = 0; round < last; round += kHeldColumns) {
    if (round > 0) load_norm(round);
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) {
      const uint32_t c = column(round, i);
      if (c >= last) continue;  // of a whole warp
      const float4 held = c < cols ? *reinterpret_cast<const float4*>(scratch.stream + c) : make_float4(0, 0, 0, 0);
      const float4 w = norm[i];
      if (next_stream != nullptr && c >= keep_begin && c < keep_end)
        __stcg(reinterpret_cast<float4*>(next_stream + c), held);
      const uint32_t of_warp = c - 4 * (threadIdx.x % 32);
      if (of_warp >= 32 * end_block || of_warp + 128 <= 32 * first_block) continue;  // of another slice
      quantize_columns(scratch, plain_columns, first_block, end_block, c,
                       {held.x * inverse_size * w.x, held.y * inverse_size * w.y, held.z * inverse_size * w.z,
                        held.w * inverse_size * w.w});
    }
  }
}

// What stages left, their sum or gates times what they gate, quantised into scratch.
__device__ inline void prepare_others(const Stage& s, uint32_t first_block, uint32_t end_block, const Scratch& scratch,
                                      const Pass& pass, Patience& patience) {
  constexpr uint32_t kHeld = 5, kHeldColumns = 4 * kThreads * kHeld;
  const bool swiglu = s.input == Input::kSwiglu;
  const float* a = s.in.data;
  const float* b = swiglu ? a + s.w.cols : s.in.count > 1 ? a + s.in.stride : nullptr;
  const uint32_t cols = s.w.cols, last = 32 * end_block, end = min(last, cols);
  const uint32_t plain_columns = s.w.residual_values != nullptr ? cols : 0;
  for (uint32_t round = 32 * first_block; round < last; round += kHeldColumns) {
    float4 of_a[kHeld], of_b[kHeld];
    wait_columns(a, b, round, end, tag_of(s.in_layer, pass.layers_before), patience, of_a, of_b);
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) {
      const uint32_t c = round + 4 * (threadIdx.x + i * kThreads);
      if (c >= last) continue;  // of a whole warp
      float4 x = sum_of(untagged(of_a[i]), untagged(of_b[i]));
      if (swiglu) {
        const float4 gate = of_a[i], up = of_b[i];
        x = {gate.x * up.x, gate.y * up.y, gate.z * up.z, gate.w * up.w};
      }
      quantize_columns(scratch, plain_columns, first_block, end_block, c, x);
    }
  }
}

// One step: acc[i] += row i of this lane's four times its block of activations q [32], times kSumFactor.
template <typename Decoder>
__device__ __forceinline__ void multiply_step(const Decoder& decoder, const uint8_t* step, const uint4* q,
                                              uint32_t zero, const float2* steps, float (&acc)[4]) {
  constexpr unsigned kBits = Decoder::kBits;
  const uint32_t lane = threadIdx.x % 32;
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
  const uint32_t lane = threadIdx.x % 32;
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
        multiply_step(decoder, step + kStep * i, reinterpret_cast<const uint4*>(q + 32 * kStepBlocks * i),
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
  if (threadIdx.x % 32 == 0) all[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x == 0)
    for (unsigned i = 1; i < kWarps; ++i)
      if (likelier(all[i], best)) best = all[i];
  return best;
}

// Returns true in all threads if one has waited too long.
__device__ inline bool product_stage(const Stage& s, WeightStream& stream, const Scratch& scratch, Pass& pass,
                                     Patience& patience) {
  const TrellisMatrix& w = s.w;
  const uint32_t warp = share_of_warp(), lane = threadIdx.x % 32;
  Share share = share_of(s.deal, blockIdx.x, warp);
  share.slice_begin = uniform(share.slice_begin);
  share.slice_end = uniform(share.slice_end);
  share.begin = uniform(share.begin);
  share.end = uniform(share.end);
  if (threadIdx.x < 256)
    scratch.steps[threadIdx.x] = make_float2(w.block_steps[threadIdx.x % 16], w.block_steps[threadIdx.x / 16]);
  // Of this thread's first row, asked for long before it is needed.
  const uint32_t rows_of_block = 16 * (share.panel_end - share.panel_begin);
  const float first_row_scale =
      load_early(w.row_scales + 16 * share.panel_begin + threadIdx.x, threadIdx.x < rows_of_block);
  const uint32_t first_block = kStepBlocks * share.slice_begin, end_block = kStepBlocks * share.slice_end;
  if (s.input != Input::kNorm) {
    prepare_others(s, first_block, end_block, scratch, pass, patience);
  } else if (!s.same_input || !pass.has_stream) {
    prepare_normed(s, first_block, end_block, scratch, pass, patience);
    if (threadIdx.x == 0) pass.has_stream = true;  // which all have read before they met to add up
  }
  if (uniform(__syncthreads_or(patience.exhausted()))) return true;
  if (share.end > share.begin) {
    with_rows(uniform(w.bits), uniform(w.differences),
              [&](auto decoder) { multiply_share<typename decltype(decoder)::type>(w, share, warp, stream, scratch); });
  } else if (lane < 16) {
    scratch.sums[16 * warp * scratch.sum_slots + lane] = 0;  // it may be between two that have steps of a panel
  }
  __syncthreads();
  // A row's sum over the warps that had steps of its panel, in their order.
  const uint32_t panels = share.panel_end - share.panel_begin;
  Best best = {-INFINITY, 0x7fffffff};
  float* out = s.out + static_cast<uint64_t>(share.slice) * 16 * w.panels;
  const uint32_t tag = tag_of(s.out_layer, pass.layers_before);
  // With a residual to come, words are not yet what they shall be. Logits are for the host.
  const bool more_to_come = w.residual_values != nullptr;
  const uint32_t first_tag = more_to_come ? tag ^ 1 : tag;
  const auto activated = [&](uint32_t row, float y) { return row < s.gates ? silu(y) : y; };
  const auto put = [&](uint32_t row, float y, uint32_t its_tag) {
    if (s.best != nullptr) {
      __stcg(out + row, y);
    } else {
      store_tagged(out + row, y, its_tag);
    }
  };
  for (uint32_t i = threadIdx.x; i < 16 * panels; i += kThreads) {
    const Span span = scratch.spans[i / 16];
    float sum = scratch.sums[16 * span.slot + i % 16];
#pragma unroll 1
    for (uint32_t v = span.second; v <= span.last; ++v) sum += scratch.sums[16 * v * scratch.sum_slots + i % 16];
    const uint32_t row = 16 * share.panel_begin + i;
    const float y = sum * (1 / kSumFactor) * (i == threadIdx.x ? first_row_scale : __ldg(w.row_scales + row));
    put(row, more_to_come ? y : activated(row, y), first_tag);
    if (s.best != nullptr && row < w.rows && likelier({y, static_cast<int32_t>(row)}, best))
      best = {y, static_cast<int32_t>(row)};
  }
  if (more_to_come) {
    __syncthreads();
    best = {-INFINITY, 0x7fffffff};
    for (uint32_t i = warp; i < 16 * panels; i += kWarps) {
      const uint32_t row = 16 * share.panel_begin + i;
      const float more = row < w.rows ? residual_row(w, row, scratch.x) : 0.0f;
      if (lane == 0) {
        const float y = __ldcg(out + row) + more;
        put(row, activated(row, y), tag);
        if (row < w.rows && likelier({y, static_cast<int32_t>(row)}, best)) best = {y, static_cast<int32_t>(row)};
      }
    }
    __syncthreads();  // the next stage writes scratch.x before it meets
  }
  if (s.best != nullptr) {
    best = block_best(best, scratch);
    if (threadIdx.x == 0) {
      __stcg(&s.best[blockIdx.x].logit, best.logit);
      __stcg(&s.best[blockIdx.x].token, best.token);
    }
  }
  return false;
}

}  // namespace upg::cuda
