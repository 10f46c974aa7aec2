// The product of few tokens on Hopper's warpgroup instructions. Four warps go through four panels, a panel each,
// without waiting for the others. A warp decodes weights in the registers from which the tensor cores take them: the
// order of the sum's terms is free, so what a lane has decoded, 32 columns of a row, are its own terms of eight
// products, and the tokens lie in shared memory in that order.
#include "cuda/batch_gemm_few.cuh"
//
#include "cuda/launch.cuh"

namespace upg::cuda {
namespace {

constexpr unsigned kGroupWarps = 4, kGroups = kFewWarps / kGroupWarps;  // warps of a group, groups of a block
constexpr unsigned kSlots = 2;                                          // of a warp's ring, a step each
constexpr unsigned kParts = 32;                                         // of a step: eight columns of all tokens
constexpr uint32_t kMostSteps = 64;                                     // of a slice

// Of a block whose slice has so many steps.
template <typename Decoder, unsigned kTiles>
uint64_t shared_bytes(uint32_t steps) {
  if (steps > kMostSteps) return UINT64_MAX / 2;  // more than fits
  return kFewWarps * kSlots * step_bytes(Decoder::kBits) + steps * kParts * 16 * 8 * kTiles;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// The lower word of what says where tokens lie: eight tokens' eight columns together in 128 bytes, such parts of the
// next tokens after them, of the next columns `part_bytes` away. Bytes are counted by 16, so that an address further on
// is an addition.
__device__ __forceinline__ uint32_t lower_descriptor(uint32_t address, uint32_t part_bytes) {
  return (address & 0x3ffffu) >> 4 | part_bytes >> 4 << 16;
}
__device__ __forceinline__ uint64_t descriptor(uint32_t lower) {
  uint64_t both;
  asm("mov.b64 %0, {%1, %2};" : "=l"(both) : "r"(lower), "n"(128 >> 4));
  return both;
}

#define UPG_D4(i) "+f"(sums[i][0]), "+f"(sums[i][1]), "+f"(sums[i][2]), "+f"(sums[i][3])
#define UPG_A "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])

// sums += a b: 64 x 16 by 16 x 8 kTiles, by four warps with 16 rows each.
template <unsigned kTiles>
__device__ __forceinline__ void multiply_group(float (&sums)[kTiles][4], const uint32_t (&a)[4], uint64_t b) {
  if constexpr (kTiles == 1) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0, %1, %2, %3}, {%4, %5, %6, %7}, %8, 1, 1, 1, 0;"
                 : UPG_D4(0)
                 : UPG_A, "l"(b));
  } else if constexpr (kTiles == 2) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9, %10, %11}, %12, "
        "1, 1, 1, 0;"
        : UPG_D4(0), UPG_D4(1)
        : UPG_A, "l"(b));
  } else if constexpr (kTiles == 4) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
        "%13, %14, %15}, {%16, %17, %18, %19}, %20, 1, 1, 1, 0;"
        : UPG_D4(0), UPG_D4(1), UPG_D4(2), UPG_D4(3)
        : UPG_A, "l"(b));
  } else {
    static_assert(kTiles == 8);
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
        "%13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, "
        "%34, "
        "%35}, %36, 1, 1, 1, 0;"
        : UPG_D4(0), UPG_D4(1), UPG_D4(2), UPG_D4(3), UPG_D4(4), UPG_D4(5), UPG_D4(6), UPG_D4(7)
        : UPG_A, "l"(b));
  }
}
#undef UPG_A
#undef UPG_D4

template <typename Decoder, unsigned kTiles>
__device__ __forceinline__ void multiply_slice(const TrellisMatrix& w, const Deal& deal, const __half* x,
                                               const float* token_scales, uint32_t n, float* parts, float* scratch,
                                               uint32_t one) {
  constexpr unsigned kTokens = 8 * kTiles, kStep = step_bytes(Decoder::kBits), kPartBytes = 16 * kTokens;
  constexpr uint32_t kTokenStepBytes = kParts * kPartBytes;
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ HalfStep steps[16];
  __shared__ uint64_t barriers[kFewWarps][kSlots];  // which tell that a slot is full
  __shared__ uint64_t tokens_full[kMostSteps];      // the same of a step's tokens
  const unsigned warp = uniform(threadIdx.x / 32), share = warp / kGroupWarps, in_group = warp % kGroupWarps;
  const unsigned lane = threadIdx.x % 32;
  const uint32_t first_step = deal.steps.begin(blockIdx.y), n_steps = deal.steps.begin(blockIdx.y + 1) - first_step;
  const uint32_t first_group = deal.panels.begin(blockIdx.x), end_group = deal.panels.begin(blockIdx.x + 1);
  uint8_t* tokens = shared;
  const uint32_t ring = shared_address(shared + n_steps * kTokenStepBytes + warp * kSlots * kStep);
  const uint32_t full = shared_address(barriers[warp]);
  if (threadIdx.x < 16) steps[threadIdx.x] = half_step(w.block_steps[threadIdx.x]);
  const Decoder decoder(w, one, kOffset);

  // This group's share of the block's panels, four at a time, in steps: where four panels are cut, others have the
  // rest.
  const uint32_t items = (end_group - first_group) * n_steps;
  const uint32_t begin = items * share / kGroups, end = items * (share + 1) / kGroups;
  uint32_t group = first_group + begin / n_steps, step = begin % n_steps;
  uint32_t coming = begin, coming_group = group, coming_step = step;
  // Past the last panel comes the last one again, whose sums nobody takes.
  const auto panel_of = [&](uint32_t of_group) { return min(kGroupWarps * of_group + in_group, w.panels - 1); };
  const auto fetch = [&](uint32_t slot) {
    if (coming == end) return;
    if (elected()) {
      expect_bytes(full + 8 * slot, kStep);
      copy_weights(
          ring + slot * kStep,
          w.data + (static_cast<uint64_t>(panel_of(coming_group)) * w.steps + first_step + coming_step) * kStep, kStep,
          full + 8 * slot);
    }
    ++coming;
    if (++coming_step < n_steps) return;
    coming_step = 0;
    ++coming_group;
  };
  if (lane < kSlots) barrier_init(barriers[warp] + lane);
  if (threadIdx.x < n_steps) barrier_init(tokens_full + threadIdx.x);
  publish_barriers();
  __syncthreads();
  for (unsigned i = 0; i < kSlots; ++i) fetch(i);
  wait_for_kernel_before();
  let_next_kernel_start();
  // The slice of the tokens, first the steps with which shares begin.
  if (warp == 0) {
    uint32_t starts[kGroups];
    for (unsigned i = 0; i < kGroups; ++i) starts[i] = items * i / kGroups % n_steps;
    const auto until_needed = [&](uint32_t of_step) {
      uint32_t least = n_steps;
      for (uint32_t start : starts) least = min(least, of_step >= start ? of_step - start : of_step + n_steps - start);
      return least;
    };
    for (uint32_t i = lane; i < n_steps; i += 32) expect_bytes(shared_address(tokens_full + i), kTokenStepBytes);
    for (uint32_t turn = 0; turn < n_steps; ++turn)
      for (uint32_t i = lane; i < n_steps; i += 32)
        if (until_needed(i) == turn)
          copy_bulk(shared_address(tokens + i * kTokenStepBytes),
                    reinterpret_cast<const uint8_t*>(x) + static_cast<uint64_t>(first_step + i) * kTokenStepBytes,
                    kTokenStepBytes, shared_address(tokens_full + i));
  }

  FewSums<1, kTiles> sums;
  const auto scratch_of = [&](unsigned of_share) {
    const uint64_t block = static_cast<uint64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
    return scratch + (block * kFewWarps + of_share * kGroupWarps + in_group) * kFewSums + lane;
  };
  bool from_start = step == 0;  // these warps have the panels' first step
#pragma unroll 1
  for (uint32_t at = begin; at < end; ++at) {
    const uint32_t slot = (at - begin) % kSlots;
    barrier_wait(full + 8 * slot, (at - begin) / kSlots % 2);
    if (at - begin < n_steps) barrier_wait(shared_address(tokens_full) + 8 * step, 0);
    const auto* now = static_cast<const uint8_t*>(__cvta_shared_to_generic(ring + slot * kStep));
    const uint32_t b = uniform(lower_descriptor(shared_address(tokens), kPartBytes) + step * (kTokenStepBytes / 16));
    TwoRows<Decoder> rows;
    rows.decode(decoder, now, 0, steps);
#pragma unroll
    for (unsigned odd = 0; odd < 2; ++odd) {
      uint32_t a[8][4];
#pragma unroll
      for (unsigned i = 0; i < 8; ++i) {
#pragma unroll
        for (unsigned row = 0; row < 2; ++row) {
          uint32_t halves[2];
          to_halves(rows.levels[row][i], rows.steps[row], halves);
          a[i][row] = halves[0];
          a[i][2 + row] = halves[1];
        }
      }
      asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
      for (unsigned i = 0; i < 8; ++i)
        multiply_group<kTiles>(sums.acc[0], a[i], descriptor(b + (16 * odd + 2 * i) * (kPartBytes / 16)));
      asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
      // Meanwhile the rest of the step is decoded, or its place in the ring filled again.
      if (odd == 0) {
        rows.decode(decoder, now, 1, steps);
      } else {
        __syncwarp();
        fetch(slot);
      }
      asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    }
    if (++step < n_steps) continue;
    if (from_start) {
      sums.put(w, kGroupWarps * group + in_group, token_scales, n, parts);
    } else {
      sums.leave(scratch_of(share));
    }
    sums.clear();
    from_start = true;
    step = 0;
    ++group;
  }
  if (step > 0 && !from_start) sums.leave(scratch_of(share));  // the middle of some panels
  __syncthreads();
  if (step == 0 || !from_start || begin == end) return;
  // The rest of these panels, from those who had it.
  uint32_t left = n_steps - step;
#pragma unroll 1
  for (unsigned other = share + 1; left > 0; ++other) {
    const uint32_t its = items * (other + 1) / kGroups - items * other / kGroups;
    if (its == 0) continue;
    sums.add(scratch_of(other));
    left -= min(left, its);
  }
  sums.put(w, kGroupWarps * group + in_group, token_scales, n, parts);
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

// Slice `blockIdx.y` of the columns, and some of the panels: parts [slices][n][16 panels], scratch
// [blocks][kFewWarps][kFewSums].
template <typename Decoder, unsigned kTiles>  // of 8 tokens
__global__ void __launch_bounds__(kFewThreads, 1)
    few_wide_gemm(TrellisMatrix w, Deal deal, const __half* x, const float* token_scales, uint32_t n, float* parts,
                  float* scratch, uint32_t one) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  multiply_slice<Decoder, kTiles>(w, deal, x, token_scales, n, parts, scratch, one);
#endif
}

template <typename Decoder, unsigned kTiles>
Deal deal_of(const TrellisMatrix& w, uint32_t n, const GemmResources& resources) {
  return deal_few(w, resources, n, kGroupWarps, kGroups, shared_bytes<Decoder, kTiles>);
}

template <typename Decoder, unsigned kTiles>
FewParts start(const TrellisMatrix& w, HalfTokens x, uint32_t n, const GemmResources& resources, Queue queue) {
  const Deal deal = deal_of<Decoder, kTiles>(w, n, resources);
  static const cudaError_t allowed =
      cudaFuncSetAttribute(few_wide_gemm<Decoder, kTiles>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(resources.shared_limit - kDeclaredBytes));
  if (allowed != cudaSuccess) return {allowed, deal.slices};
  const auto bytes = static_cast<uint32_t>(shared_bytes<Decoder, kTiles>(deal.steps.each + (deal.steps.larger > 0)));
  const cudaError_t status =
      chain(queue, few_wide_gemm<Decoder, kTiles>, dim3(deal.blocks_of_slice, deal.slices), dim3(kFewThreads), bytes, 1,
            w, deal, static_cast<const __half*>(x.values), x.scales, n, resources.parts, resources.scratch, 1u);
  return {status, deal.slices};
}

}  // namespace

uint32_t tokens_together(const TrellisMatrix& w, uint32_t n, const GemmResources& resources) {
  if (!resources.wide || n > kFewTokens) return 0;
  return with_tiles(w, n, [&](auto decoder, auto tiles) -> uint32_t {
    const Deal deal = deal_of<typename decltype(decoder)::type, tiles()>(w, n, resources);
    return deal.slices == 0 ? 0 : 8 * tiles();
  });
}

FewParts multiply_few_tokens_wide(const TrellisMatrix& w, HalfTokens x, uint32_t n, const GemmResources& resources,
                                  Queue queue) {
  return with_tiles(w, n, [&](auto decoder, auto tiles) {
    return start<typename decltype(decoder)::type, tiles()>(w, x, n, resources, queue);
  });
}

}  // namespace upg::cuda
