// A product stage: y = W x for one token. The input is prepared (prepare.cuh), then every warp multiplies its steps.
#pragma once

#include "cuda/prepare.cuh"

namespace upg::cuda {

__device__ inline float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

// One step: acc[i] += row i of this lane's four times its block of activations, whose halves q is the first of, times
// kSumFactor.
template <typename Decoder>
__device__ __forceinline__ void multiply_step(const Decoder& decoder, uint32_t lane, const uint8_t* step,
                                              const uint4* q, uint32_t zero, const float2* steps, float (&acc)[4]) {
  constexpr unsigned kBits = Decoder::kBits;
  uint4 words[kBits];
#pragma unroll
  for (unsigned k = 0; k < kBits; ++k) words[k] = reinterpret_cast<const uint4*>(step + 512 * k)[lane];
  const uint8_t* places = step + 512 * kBits + 2 * lane;
  const float2 of_rows[2] = {steps[places[0]], steps[places[1]]};
  const uint4 q0 = q[0], q1 = q[kStepBlocks];
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

// mine, and what the lane that differs in those bits gives away.
__device__ __forceinline__ float exchange(float mine, float other, int bits) {
  return mine + __shfl_xor_sync(0xffffffffu, other, bits);
}

template <typename Decoder>
__device__ __forceinline__ void multiply_share(const TrellisMatrix& w, const Share& share, uint32_t inverse,
                                               uint32_t warp, WeightStream& stream, const Scratch& scratch) {
  constexpr uint32_t kStep = step_bytes(Decoder::kBits);
  const uint32_t lane = thread_now() % 32;
  const uint32_t g = lane / 4, t = lane % 4;
  const Decoder decoder(w, scratch.one, 0);
  const uint32_t n = share.slice_steps();
  const uint32_t block = 2 * t + g / 4;  // this lane's own of each step
  const bool pairs = unit_steps(scratch.slot_bytes, Decoder::kBits) == 2;
  uint32_t slot = warp * scratch.sum_slots;
  auto [panel, in_slice] = divide(share.begin, n, inverse);
  for (uint32_t left = share.end - share.begin; left > 0;) {
    // The rest of a panel, or of the share.
    const uint32_t now = min(left, n - in_slice);
    const int8_t* q = scratch.q + 32 * kStepBlocks * in_slice + 16 * block;
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
    // Lanes that differ in t or g / 4 have sums of the same four rows: each gives away what others go on with, until
    // it has one row's, which another lane has, too.
    const bool upper = t % 2 != 0, last = t / 2 != 0;
    const float first = exchange(upper ? acc[2] : acc[0], upper ? acc[0] : acc[2], 1);
    const float second = exchange(upper ? acc[3] : acc[1], upper ? acc[1] : acc[3], 1);
    float sum = exchange(last ? second : first, last ? first : second, 2);
    sum += __shfl_xor_sync(0xffffffffu, sum, 16);
    if (g < 4) scratch.sums[16 * slot + 4 * g + 2 * (t % 2) + t / 2] = sum;
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
  // Warps without rows of the product before would be here long before the others, and what they ask for would be in
  // the way of what those still add up.
  __syncthreads();
  if (s.input == Input::kPlain) {
    // Few columns are soon looked through, if there is no room for many.
    if (32 * (end_block - first_block) <= 2 * Columns::kStride) {
      prepare_others<1, 2>(s, first_block, end_block, scratch, pass, patience, while_words_come);
    } else {
      prepare_others<1, 5>(s, first_block, end_block, scratch, pass, patience, while_words_come);
    }
  } else if (!normed) {
    prepare_others<2, 5>(s, first_block, end_block, scratch, pass, patience, while_words_come);
  } else if (!s.same_input || !pass.has_stream) {
    prepare_normed(s, first_block, end_block, scratch, pass, patience, while_words_come);
  } else {
    while_words_come();
  }
  __syncthreads();
  share.slice_begin = uniform(share.slice_begin);
  share.slice_end = uniform(share.slice_end);
  share.begin = uniform(share.begin);
  share.end = uniform(share.end);
  if (share.end > share.begin) {
    with_rows(uniform(w.bits), uniform(w.differences), [&](auto decoder) {
      multiply_share<typename decltype(decoder)::type>(w, share, s.inverse[share.slice], warp, stream, scratch);
    });
  } else if (lane < 16) {
    scratch.sums[16 * warp * scratch.sum_slots + lane] = 0;  // it may be between two that have steps of a panel
  }
  __syncthreads();
  if (uniform(patience.exhausted())) return true;
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
  uint32_t stride = 16 * scratch.sum_slots;  // of the warps' sums; kept, or each address would begin with a load of it
  asm("" : "+r"(stride));
  const uint32_t first_row = thread_now();
  for (uint32_t i = first_row; i < rows_of_block; i += kThreads) {
    const Span span = scratch.spans[i / 16];
    float sum = scratch.sums[16 * span.slot + i % 16];
    const float* from = scratch.sums + stride * span.second + i % 16;
#pragma unroll 1
    for (int32_t left = static_cast<int32_t>(span.last - span.second) + 1; left > 0; left -= 4, from += 4 * stride) {
      float of_warps[4];
#pragma unroll
      for (int32_t k = 0; k < 4; ++k) of_warps[k] = k < left ? from[k * stride] : 0.0f;
#pragma unroll
      for (const float x : of_warps) sum += x;
    }
    const uint32_t row = 16 * share.panel_begin + i;
    const float y = sum * (1 / kSumFactor) * (i == first_row ? first_row_scale : __ldg(w.row_scales + row));
    if (w.paired) {
      const float other = __shfl_xor_sync(0xffffu << (i % 32 / 16 * 16), y, 8);
      if (i % 16 < 8) store_tagged(out + row / 16 * 8 + row % 8, silu(y) * other, tag);
    } else {
      put(row, y, first_tag);
    }
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
  if (normed) {
    if (s.next_stream != nullptr) keep_stream(s, scratch, pass);
    if (thread_now() == 0) pass.has_stream = true;  // as all know once they have met again
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
