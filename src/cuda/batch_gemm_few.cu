// The product of few tokens, where there are no warpgroup instructions: every warp goes through its own panels, two at
// a time, without waiting for others. It decodes weights in the registers from which the tensor cores take them: the
// order of the sum's terms is free, so what a lane has decoded, 32 columns of a row, are its own terms of eight
// products.
#include "cuda/batch_gemm_few.cuh"
//
#include "cuda/batch_tile.cuh"
#include "cuda/launch.cuh"

namespace upg::cuda {
namespace {

// With more tokens, registers are for their sums.
template <unsigned kTiles>
constexpr unsigned kPanelsAtOnce = kTiles <= 4 ? 2 : 1;
constexpr unsigned kSlots = 2;  // of a warp's ring; each has a step of all panels that the warp works on
template <typename Decoder, unsigned kTiles>
constexpr unsigned kRingBytes = kSlots* kPanelsAtOnce<kTiles>* step_bytes(Decoder::kBits);

// A token's row in shared memory: 64 bytes more, so that two rows' parts of 64 meet no bank twice.
UPG_HOST_DEVICE constexpr unsigned token_row_bytes(unsigned steps) { return 2 * kStepHalves * steps + 64; }
// Of a block whose slice has so many steps.
template <typename Decoder, unsigned kTiles>
uint32_t few_shared_bytes(uint32_t steps) {
  return kFewWarps * kRingBytes<Decoder, kTiles> + 8 * kTiles * token_row_bytes(steps);
}

// Slice `blockIdx.y` of the columns, and some of the panels: parts [slices][n][16 panels], scratch
// [blocks][kFewWarps][kFewSums].
template <typename Decoder, unsigned kTiles>  // of 8 tokens
__global__ void __launch_bounds__(kFewThreads, 1)
    few_gemm(TrellisMatrix w, Deal deal, const __half* x, uint32_t width, const float* token_scales, uint32_t n,
             float* parts, float* scratch, uint32_t one) {
  constexpr unsigned kTokens = 8 * kTiles, kPanels = kPanelsAtOnce<kTiles>, kStep = step_bytes(Decoder::kBits);
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ HalfStep steps[16];
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t first_step = deal.steps.begin(blockIdx.y), n_steps = deal.steps.begin(blockIdx.y + 1) - first_step;
  const uint32_t first_group = deal.panels.begin(blockIdx.x), end_group = deal.panels.begin(blockIdx.x + 1);
  const uint32_t row_bytes = token_row_bytes(n_steps);
  uint8_t* ring = shared + warp * kRingBytes<Decoder, kTiles>;
  uint8_t* tokens = shared + kFewWarps * kRingBytes<Decoder, kTiles>;
  if (threadIdx.x < 16) steps[threadIdx.x] = half_step(w.block_steps[threadIdx.x]);
  const Decoder decoder(w, one, kOffset);

  // This warp's share of the block's groups of panels, in steps: where a group is cut, others have the rest of it.
  const uint32_t items = (end_group - first_group) * n_steps;
  const uint32_t begin = items * warp / kFewWarps, end = items * (warp + 1) / kFewWarps;
  uint32_t group = first_group + begin / n_steps, step = begin % n_steps;
  __shared__ uint64_t barriers[kFewWarps][kSlots];
  [[maybe_unused]] uint64_t* full = barriers[warp];  // which tell that a slot is full
  uint32_t coming = begin, coming_group = group, coming_step = step;
  const uint64_t panel_bytes = static_cast<uint64_t>(w.steps) * kStep;
  const uint8_t* from = w.data + kPanels * group * panel_bytes + (first_step + step) * kStep;
  const auto fetch = [&](uint32_t slot) {
    if (coming == end) return;
    uint8_t* to = ring + slot * kPanels * kStep;
    // The last group may have one panel only, which then is there twice.
    const uint64_t second = kPanels * coming_group + 1 < w.panels ? panel_bytes : 0;
#if __CUDA_ARCH__ >= 900
    if (lane == 0) {
      expect_bytes(shared_address(full + slot), kPanels * kStep);
      copy_weights(shared_address(to), from, kStep, shared_address(full + slot));
      if (kPanels > 1) copy_weights(shared_address(to + kStep), from + second, kStep, shared_address(full + slot));
    }
#else
    for (unsigned i = 16 * lane; i < kStep; i += 512) {
      copy16(to + i, from + i);
      if (kPanels > 1) copy16(to + kStep + i, from + second + i);
    }
#endif
    ++coming;
    from += kStep;
    if (++coming_step < n_steps) return;
    coming_step = 0;
    ++coming_group;
    from += kPanels * panel_bytes - n_steps * kStep;
  };
#if __CUDA_ARCH__ >= 900
  __shared__ uint64_t tokens_full;
  if (lane == 0) {
    for (unsigned i = 0; i < kSlots; ++i) barrier_init(full + i);
    if (warp == 0) barrier_init(&tokens_full);
    publish_barriers();
  }
  __syncthreads();
#endif
  for (unsigned i = 0; i < kSlots; ++i) {
    fetch(i);
#if __CUDA_ARCH__ < 900  // groups of copies are counted
    copies_end();
#endif
  }
  wait_for_kernel_before();
  let_next_kernel_start();
  // The slice of the tokens.
  const __half* slice = x + kStepHalves * first_step;
  const uint32_t slice_bytes = 2 * kStepHalves * n_steps;
#if __CUDA_ARCH__ >= 900
  if (warp == 0) {
    if (lane == 0) expect_bytes(shared_address(&tokens_full), kTokens * slice_bytes);
    __syncwarp();
    for (unsigned token = lane; token < kTokens; token += 32)
      copy_bulk(shared_address(tokens + token * row_bytes), slice + static_cast<uint64_t>(token) * width, slice_bytes,
                shared_address(&tokens_full));
  }
  barrier_wait(shared_address(&tokens_full), 0);
#else
  for (unsigned token = warp; token < kTokens; token += kFewWarps)
    for (unsigned part = lane; part < slice_bytes / 16; part += 32)
      copy16(tokens + token * row_bytes + 16 * part, slice + static_cast<uint64_t>(token) * width + 8 * part);
  copies_end();
  copies_wait<0>();
  __syncthreads();
#endif

  FewSums<kPanels, kTiles> sums;
  const auto scratch_of = [&](unsigned of_warp) {
    const uint64_t block = static_cast<uint64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
    return scratch + (block * kFewWarps + of_warp) * kFewSums + lane;
  };
  const uint8_t* of_lane = tokens + g * row_bytes + 16 * t;
  bool from_start = step == 0;  // this warp has the group's first step
#pragma unroll 1
  for (uint32_t at = begin; at < end; ++at) {
    const uint32_t slot = (at - begin) % kSlots;
#if __CUDA_ARCH__ >= 900
    barrier_wait(shared_address(full + slot), (at - begin) / kSlots % 2);
#else
    copies_wait<static_cast<int>(kSlots) - 1>();
    __syncwarp();
#endif
    const uint8_t* now = ring + slot * kPanels * kStep;
#pragma unroll 1
    for (unsigned odd = 0; odd < 2; ++odd) {
      TwoRows<Decoder> rows[kPanels];
#pragma unroll
      for (unsigned p = 0; p < kPanels; ++p) rows[p].decode(decoder, now + p * kStep, odd, steps);
      const uint8_t* b = of_lane + 512 * step + 256 * odd;
#pragma unroll
      for (unsigned pair = 0; pair < 4; ++pair) {
        uint32_t a[2][kPanels][4];
#pragma unroll
        for (unsigned i = 0; i < 2; ++i)
#pragma unroll
          for (unsigned p = 0; p < kPanels; ++p)
#pragma unroll
            for (unsigned row = 0; row < 2; ++row) {
              uint32_t halves[2];
              to_halves(rows[p].levels[row][2 * pair + i], rows[p].steps[row], halves);
              a[i][p][row] = halves[0];
              a[i][p][2 + row] = halves[1];
            }
        // Two tiles of tokens at a time, so that sums do not wait for themselves.
        constexpr unsigned kTogether = kTiles < 2 ? 1 : 2;
#pragma unroll
        for (unsigned first = 0; first < kTiles; first += kTogether) {
          uint4 of_tokens[kTogether];
#pragma unroll
          for (unsigned j = 0; j < kTogether; ++j)
            of_tokens[j] = *reinterpret_cast<const uint4*>(b + 8 * (first + j) * row_bytes + 64 * pair);
#pragma unroll
          for (unsigned i = 0; i < 2; ++i)
#pragma unroll
            for (unsigned j = 0; j < kTogether; ++j)
#pragma unroll
              for (unsigned p = 0; p < kPanels; ++p)
                multiply_halves(sums.acc[p][first + j], a[i][p], i == 0 ? of_tokens[j].x : of_tokens[j].z,
                                i == 0 ? of_tokens[j].y : of_tokens[j].w);
        }
      }
    }
    __syncwarp();
    fetch(slot);
#if __CUDA_ARCH__ < 900
    copies_end();
#endif
    if (++step < n_steps) continue;
    if (from_start) {
      sums.put(w, kPanels * group, token_scales, n, parts);
    } else {
      sums.leave(scratch_of(warp));
    }
    sums.clear();
    from_start = true;
    step = 0;
    ++group;
  }
  if (step > 0 && !from_start) sums.leave(scratch_of(warp));  // the middle of a group
  __syncthreads();
  if (step == 0 || !from_start || begin == end) return;
  // The rest of this group, from those who had it.
  uint32_t left = n_steps - step;
#pragma unroll 1
  for (unsigned other = warp + 1; left > 0; ++other) {
    const uint32_t its = items * (other + 1) / kFewWarps - items * other / kFewWarps;
    if (its == 0) continue;
    sums.add(scratch_of(other));
    left -= min(left, its);
  }
  sums.put(w, kPanels * group, token_scales, n, parts);
}

template <typename Decoder, unsigned kTiles>
FewParts start(const TrellisMatrix& w, HalfTokens x, uint32_t n, const GemmResources& resources, Queue queue) {
  const Deal deal = deal_few(w, resources, n, kPanelsAtOnce<kTiles>, kFewWarps, few_shared_bytes<Decoder, kTiles>);
  if (deal.slices == 0) return {cudaSuccess, 0};
  static const cudaError_t allowed =
      cudaFuncSetAttribute(few_gemm<Decoder, kTiles>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(resources.shared_limit - kDeclaredBytes));
  if (allowed != cudaSuccess) return {allowed, deal.slices};
  const uint32_t bytes = few_shared_bytes<Decoder, kTiles>(deal.steps.each + (deal.steps.larger > 0));
  const cudaError_t status =
      chain(queue, few_gemm<Decoder, kTiles>, dim3(deal.blocks_of_slice, deal.slices), dim3(kFewThreads), bytes, 1, w,
            deal, static_cast<const __half*>(x.values), x.width, x.scales, n, resources.parts, resources.scratch, 1u);
  return {status, deal.slices};
}

}  // namespace

uint64_t few_scratch_floats(uint32_t multiprocessors) { return uint64_t{multiprocessors} * kFewWarps * kFewSums; }

FewParts multiply_few_tokens(const TrellisMatrix& w, HalfTokens x, uint32_t n, const GemmResources& resources,
                             Queue queue) {
  if (n > kFewTokens) return {cudaSuccess, 0};
  return with_tiles(w, n, [&](auto decoder, auto tiles) {
    return start<typename decltype(decoder)::type, tiles()>(w, x, n, resources, queue);
  });
}

}  // namespace upg::cuda
