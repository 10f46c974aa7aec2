// A product stage: y = W x for one token. The input is normed or activated and quantised by each block for itself (what
// it needs of it), then every warp multiplies its steps.
#pragma once

#include <cuda_fp16.h>

#include "cuda/stream.cuh"
#include "cuda/trellis.cuh"

namespace upg::cuda {

/// Shared memory of a block besides the rings.
struct Scratch {
  int8_t* q;     // [8 steps of the widest slice][32], in the order of place_of_column()
  float* scale;  // [the same blocks]
  float* x;      // [columns], only where some matrix has a residual
  float* sums;   // [kWarps][slots][16], or what attention needs
  uint32_t sum_slots;
  float* reduce;  // [kWarps]
  float* steps;   // [16] of the matrix at hand
  uint32_t one;   // 1, for decoders
};

__device__ inline float load_parts(const Parts& parts, uint32_t i) {
  const float first = __ldcg(parts.data + i);
  return parts.count > 1 ? first + __ldcg(parts.data + parts.stride + i) : first;
}

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}
__device__ inline float warp_max(float x) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
  return x;
}

__device__ inline float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

// A thread's columns, four at a time, kHeld times, and the norm's weights: all loads are under way before one is used.
constexpr uint32_t kHeld = 3;
constexpr uint32_t kHeldColumns = 4 * kThreads * kHeld;
struct Columns {
  float4 x[kHeld], norm[kHeld];
};

__device__ inline float4 load4(const float* p, bool valid) {
  return valid ? __ldcg(reinterpret_cast<const float4*>(p)) : make_float4(0, 0, 0, 0);
}

__device__ inline void load_columns(const Stage& s, uint32_t first, Columns* out) {
  const bool norm = s.input == Input::kNorm, swiglu = s.input == Input::kSwiglu;
  // Three vectors to add, or two to multiply, of which one may be in no need of a partner.
  const float* a = norm ? s.stream : s.in.data;
  const float* b = norm ? s.in.data : s.in.data + (swiglu ? s.w.cols : s.in.stride);
  const float* c = s.in.data + s.in.stride;
  const bool has_b = norm ? s.in.count > 0 : swiglu || s.in.count > 1, has_c = norm && s.in.count > 1;
  float4 second[kHeld], third[kHeld];
#pragma unroll
  for (uint32_t i = 0; i < kHeld; ++i) {
    const uint32_t at = first + 4 * (threadIdx.x + i * kThreads);
    const bool valid = at < s.w.cols;
    out->x[i] = load4(a + at, valid);
    second[i] = load4(b + at, valid && has_b);
    third[i] = load4(c + at, valid && has_c);
    out->norm[i] = load4(s.norm + at, valid && norm);
  }
#pragma unroll
  for (uint32_t i = 0; i < kHeld; ++i) {
    float4& x = out->x[i];
    const float4 y = second[i], z = third[i];
    if (swiglu) {
      x = {silu(x.x) * y.x, silu(x.y) * y.y, silu(x.z) * y.z, silu(x.w) * y.w};
    } else {
      x = {x.x + y.x + z.x, x.y + y.y + z.y, x.z + y.z + z.z, x.w + y.w + z.w};
    }
  }
}

// The sum of a value of each thread, in all threads.
__device__ inline float block_sum(float x, float* reduce) {
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) reduce[threadIdx.x / 32] = x;
  __syncthreads();
  return warp_sum(threadIdx.x % 32 < kWarps ? reduce[threadIdx.x % 32] : 0.0f);
}

// Columns c to c + 3, quantised as in kernels::QuantizeArgs: eight lanes have a block of 32, and all lanes of a warp
// come here together.
__device__ inline void quantize_columns(const Stage& s, const Scratch& scratch, uint32_t first_block,
                                        uint32_t end_block, uint32_t c, const float (&x)[4]) {
  float largest = fmaxf(fmaxf(fabsf(x[0]), fabsf(x[1])), fmaxf(fabsf(x[2]), fabsf(x[3])));
#pragma unroll
  for (int d = 4; d > 0; d /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, d));
  float scale = 0, inverse = 0;
  if (largest >= 0x1p-100f) {
    const uint32_t bits = (__float_as_uint(__fdiv_rn(largest, 127.0f)) + 0x7fffffu) & 0x7f800000u;
    scale = __uint_as_float(bits);
    inverse = __uint_as_float(0x7f000000u - bits);
  }
  const uint32_t block = c / 32;
  if (block < first_block || block >= end_block) return;
  const uint32_t at = 32 * (block - first_block);
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i)
    scratch.q[at + place_of_column((c + i) % 32)] = static_cast<int8_t>(__float2int_rn(x[i] * inverse));
  if (c % 32 == 0) scratch.scale[at / 32] = scale;
  if (s.w.residual_values != nullptr) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i)
      if (c + i < s.w.cols) scratch.x[c + i] = x[i];
  }
}

// Columns of steps [begin, end), quantised into scratch.
__device__ inline void prepare_input(const Stage& s, uint32_t begin, uint32_t end, const Scratch& scratch) {
  const uint32_t first_block = kStepBlocks * begin, end_block = kStepBlocks * end;
  const bool norm = s.input == Input::kNorm;
  // A norm needs all columns, and if they do not fit the registers, twice.
  const uint32_t first = norm ? 0 : 32 * first_block, last = norm ? 32 * kStepBlocks * s.w.steps : 32 * end_block;
  float inverse_size = norm ? 0.0f : 1.0f, power = 0;  // 0: not known yet
  for (uint32_t at = first; at < last;) {
    Columns columns;
    load_columns(s, at, &columns);
    if (inverse_size == 0) {
#pragma unroll
      for (uint32_t i = 0; i < kHeld; ++i) {
        const float4 x = columns.x[i];
        power += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
      }
      at += kHeldColumns;
      if (at < s.w.cols) continue;
      power = block_sum(power, scratch.reduce);
      inverse_size = __frsqrt_rn(power / static_cast<float>(s.w.cols) + s.epsilon);
      at = first;
      if (s.w.cols > kHeldColumns) continue;
    }
#pragma unroll
    for (uint32_t i = 0; i < kHeld; ++i) {
      const uint32_t c = at + 4 * (threadIdx.x + i * kThreads);
      if (c >= last) continue;  // of a whole warp
      float x[4] = {columns.x[i].x, columns.x[i].y, columns.x[i].z, columns.x[i].w};
      if (norm) {
        const float w[4] = {columns.norm[i].x, columns.norm[i].y, columns.norm[i].z, columns.norm[i].w};
        // Each block leaves a part of the new residual stream for the next norm.
        const bool keeps = s.next_stream != nullptr && c / 32 % gridDim.x == blockIdx.x;
#pragma unroll
        for (uint32_t j = 0; j < 4; ++j) {
          if (keeps && c + j < s.w.cols) __stcg(s.next_stream + c + j, x[j]);
          x[j] *= inverse_size * w[j];
        }
      }
      quantize_columns(s, scratch, first_block, end_block, c, x);
    }
    at += kHeldColumns;
  }
}

// Bits of the float 1.5 * 2^23: an integer added to them adds to the float, so sums that start here are floats already.
constexpr int kFloatZero = 0x4b400000;
constexpr float kFloatZeroValue = 12582912.0f;

// One step: acc[i] += row i of this lane's four times its block of activations q [32].
template <typename Decoder>
__device__ __forceinline__ void multiply_step(const Decoder& decoder, const uint8_t* step, const uint4* q,
                                              float activation_scale, const float* steps, float (&acc)[4]) {
  constexpr unsigned kBits = Decoder::kBits;
  const uint32_t lane = threadIdx.x % 32;
  uint4 words[kBits];
#pragma unroll
  for (unsigned k = 0; k < kBits; ++k) words[k] = reinterpret_cast<const uint4*>(step + 512 * k)[lane];
  const uint32_t scales = reinterpret_cast<const uint16_t*>(step + 512 * kBits)[lane];
  const uint4 q0 = q[0], q1 = q[1];
  const uint32_t b[8] = {q0.x, q0.y, q0.z, q0.w, q1.x, q1.y, q1.z, q1.w};
#pragma unroll
  for (unsigned row = 0; row < 4; ++row) {
    uint32_t of_row[kBits], levels[8];
#pragma unroll
    for (unsigned k = 0; k < kBits; ++k)
      of_row[k] = row == 0 ? words[k].x : row == 1 ? words[k].y : row == 2 ? words[k].z : words[k].w;
    int sum = kFloatZero;
    if constexpr (Decoder::kSums) {
      uint32_t more[8];
      decoder.row(of_row, levels, more);
      int second = 0;  // two chains
#pragma unroll
      for (unsigned i = 0; i < 8; ++i) {
        sum = __dp4a(static_cast<int>(levels[i]), static_cast<int>(b[i]), sum);
        second = __dp4a(static_cast<int>(more[i]), static_cast<int>(b[i]), second);
      }
      sum += second;
    } else {
      decoder.row(of_row, levels);
#pragma unroll
      for (unsigned i = 0; i < 8; ++i) sum = __dp4a(static_cast<int>(levels[i]), static_cast<int>(b[i]), sum);
    }
    // The step's place, times four.
    const uint32_t place = (row == 0 ? scales * 4 : scales >> (4 * row - 2)) & 60;
    const float scale =
        *reinterpret_cast<const float*>(reinterpret_cast<const uint8_t*>(steps) + place) * activation_scale;
    acc[row] = fmaf(__int_as_float(sum) - kFloatZeroValue, scale, acc[row]);
  }
}

template <typename Decoder>
__device__ __forceinline__ void multiply_share(const TrellisMatrix& w, const Share& share, WeightStream& stream,
                                               const Scratch& scratch) {
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t g = lane / 4, t = lane % 4;
  const Decoder decoder(w, scratch.one, 0);
  const uint32_t n = share.slice_steps();
  const uint32_t block = 2 * t + g / 4;  // this lane's own of each step
  float* sums = scratch.sums + warp * scratch.sum_slots * 16;
  uint32_t in_slice = share.begin % n;
  for (uint32_t left = share.end - share.begin; left > 0;) {
    // The rest of a panel, or of the share.
    const uint32_t now = min(left, n - in_slice);
    const int8_t* q = scratch.q + 32 * (kStepBlocks * in_slice + block);
    const float* scale = scratch.scale + kStepBlocks * in_slice + block;
    float acc[4] = {0, 0, 0, 0};
    stream.more();
    for (uint32_t of_panel = now; of_panel > 0;) {
      const uint32_t of_unit = min(of_panel, kUnitSteps);
      const uint8_t* step = stream.front();
#pragma unroll 1
      for (uint32_t i = 0; i < of_unit; ++i) {
        multiply_step(decoder, step, reinterpret_cast<const uint4*>(q), *scale, scratch.steps, acc);
        step += step_bytes(Decoder::kBits);
        q += 32 * kStepBlocks;
        scale += kStepBlocks;
      }
      stream.pop();
      of_panel -= of_unit;
    }
#pragma unroll
    for (unsigned r = 0; r < 4; ++r) {
      acc[r] += __shfl_xor_sync(0xffffffffu, acc[r], 1);
      acc[r] += __shfl_xor_sync(0xffffffffu, acc[r], 2);
      acc[r] += __shfl_xor_sync(0xffffffffu, acc[r], 16);
    }
    if (t == 0 && g < 4) reinterpret_cast<float4*>(sums)[g] = make_float4(acc[0], acc[1], acc[2], acc[3]);
    sums += 16;
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

__device__ inline void product_stage(const Stage& s, WeightStream& stream, const Scratch& scratch) {
  const TrellisMatrix& w = s.w;
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Share share = share_of(w.panels, w.steps, s.splits, blockIdx.x, gridDim.x, warp);
  if (threadIdx.x < 16) scratch.steps[threadIdx.x] = w.block_steps[threadIdx.x];
  // Of this thread's first row, asked for long before it is needed.
  const uint32_t rows_of_block = 16 * (share.panel_end - share.panel_begin);
  const float first_row_scale =
      threadIdx.x < rows_of_block ? __ldg(w.row_scales + 16 * share.panel_begin + threadIdx.x) : 0.0f;
  prepare_input(s, share.slice_begin, share.slice_end, scratch);
  __syncthreads();
  if (share.end > share.begin) {
    with_decoder(w, [&](auto decoder) { multiply_share<typename decltype(decoder)::type>(w, share, stream, scratch); });
  }
  __syncthreads();
  // A row's sum over the warps that had steps of its panel, in their order.
  const uint32_t n = share.slice_steps();
  const uint32_t panels = share.panel_end - share.panel_begin, total = panels * n;
  Best best = {-INFINITY, 0x7fffffff};
  const uint32_t slice = blockIdx.x / (gridDim.x / s.splits);
  float* out = s.out + static_cast<uint64_t>(slice) * 16 * w.panels;
  for (uint32_t i = threadIdx.x; i < 16 * panels; i += kThreads) {
    const uint32_t panel = i / 16, first = panel * n, end = first + n;
    float sum = 0;
    // Warp v has steps from total v / kWarps on.
    for (uint32_t v = first * kWarps / total; v < kWarps; ++v) {
      const uint32_t begin_v = total * v / kWarps, end_v = total * (v + 1) / kWarps;
      if (begin_v >= end) break;
      if (end_v <= first || begin_v == end_v) continue;
      sum += scratch.sums[(v * scratch.sum_slots + panel - begin_v / n) * 16 + i % 16];
    }
    const uint32_t row = 16 * share.panel_begin + i;
    const float y = sum * (i == threadIdx.x ? first_row_scale : __ldg(w.row_scales + row));
    __stcg(out + row, y);
    if (s.best != nullptr && row < w.rows && likelier({y, static_cast<int32_t>(row)}, best))
      best = {y, static_cast<int32_t>(row)};
  }
  if (w.residual_values != nullptr) {
    __syncthreads();
    best = {-INFINITY, 0x7fffffff};
    for (uint32_t i = warp; i < 16 * panels; i += kWarps) {
      const uint32_t row = 16 * share.panel_begin + i;
      if (row >= w.rows) break;
      const float more = residual_row(w, row, scratch.x);
      if (lane == 0) {
        const float y = __ldcg(out + row) + more;
        __stcg(out + row, y);
        if (likelier({y, static_cast<int32_t>(row)}, best)) best = {y, static_cast<int32_t>(row)};
      }
    }
  }
  if (s.best != nullptr) {
    best = block_best(best, scratch);
    if (threadIdx.x == 0) {
      __stcg(&s.best[blockIdx.x].logit, best.logit);
      __stcg(&s.best[blockIdx.x].token, best.token);
    }
  }
}

}  // namespace upg::cuda
