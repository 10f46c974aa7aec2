// What the two products of few tokens share.
#pragma once

#include <cuda_fp16.h>

#include <algorithm>
#include <type_traits>

#include "cuda/batch_gemm.cuh"

namespace upg::cuda {

constexpr unsigned kFewWarps = 16, kFewThreads = 32 * kFewWarps;
constexpr unsigned kDeclaredBytes = 1024;  // room for what is declared in the kernels
constexpr unsigned kStepHalves = 32 * kStepBlocks;
constexpr unsigned kFewSums = 32 * 32;  // most sums of a warp, of all its panels and tokens

// Two rows of a panel, 2 g and 2 g + 1, of one block of 32 columns: levels + 128, and the rows' steps.
template <typename Decoder>
struct TwoRows {
  uint32_t levels[2][8];
  HalfStep steps[2];

  // The lane's block is 2 (lane % 4) + odd of the step.
  __device__ __forceinline__ void decode(const Decoder& decoder, const uint8_t* step, unsigned odd,
                                         const HalfStep* steps_of) {
    constexpr unsigned kBits = Decoder::kBits;
    const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const unsigned from = 4 * (g / 2 + 4 * odd) + t;
    uint32_t words[2][kBits];
#pragma unroll
    for (unsigned k = 0; k < kBits; ++k) {
      const uint2 both = *reinterpret_cast<const uint2*>(step + 512 * k + 16 * from + 8 * (g % 2));
      words[0][k] = both.x;
      words[1][k] = both.y;
    }
    const uint32_t places = step[512 * kBits + 2 * from + g % 2];
    steps[0] = steps_of[places & 15];
    steps[1] = steps_of[places >> 4];
    decoder.bytes(words[0], levels[0]);
    decoder.bytes(words[1], levels[1]);
  }
};

// A lane's sums of kPanels panels and 8 kTiles tokens, as the tensor cores leave them: rows 2 g and 2 g + 1 of a panel,
// tokens 2 t and 2 t + 1 of a tile.
template <unsigned kPanels, unsigned kTiles>
struct FewSums {
  float acc[kPanels][kTiles][4] = {};

  template <typename F>
  __device__ __forceinline__ void for_each(F f) {
#pragma unroll
    for (unsigned p = 0; p < kPanels; ++p)
#pragma unroll
      for (unsigned tile = 0; tile < kTiles; ++tile)
#pragma unroll
        for (unsigned e = 0; e < 4; ++e) f(acc[p][tile][e], (p * kTiles + tile) * 4 + e);
  }
  __device__ __forceinline__ void clear() {
    for_each([](float& sum, unsigned) { sum = 0; });
  }
  // To and from scratch of this lane, for another warp.
  __device__ __forceinline__ void leave(float* scratch) {
    for_each([&](float sum, unsigned i) { __stcg(scratch + 32 * i, sum); });
  }
  __device__ __forceinline__ void add(const float* scratch) {
    for_each([&](float& sum, unsigned i) { sum += __ldcg(scratch + 32 * i); });
  }
  // To parts [slices][n][16 panels], of slice blockIdx.y, from `panel` on.
  __device__ __forceinline__ void put(const TrellisMatrix& w, uint32_t panel, const float* token_scales, uint32_t n,
                                      float* parts) const {
    const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (unsigned p = 0; p < kPanels; ++p) {
      const uint32_t now = panel + p, row = 16 * now + 2 * g;
      if (now >= w.panels) continue;
      const float2 row_scales = *reinterpret_cast<const float2*>(w.row_scales + row);
#pragma unroll
      for (unsigned tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (unsigned e = 0; e < 2; ++e) {
          const uint32_t token = 8 * tile + 2 * t + e;
          if (token >= n) continue;
          const float scale = kHalfUnit * token_scales[token];
          float* to = parts + (static_cast<uint64_t>(blockIdx.y) * n + token) * 16 * w.panels + row;
          *reinterpret_cast<float2*>(to) =
              make_float2(acc[p][tile][e] * row_scales.x * scale, acc[p][tile][2 + e] * row_scales.y * scale);
        }
      }
    }
  }
};

// How a product is dealt to the blocks so that the busiest has least to do: its panels in groups of `panels_at_once`,
// each block's groups to `shares` of its warps. shared_bytes(steps) is what a slice of so many steps takes. slices ==
// 0: it does not fit.
template <typename SharedBytes>
Deal deal_few(const TrellisMatrix& w, const GemmResources& resources, uint32_t n, uint32_t panels_at_once,
              uint32_t shares, SharedBytes shared_bytes) {
  const uint32_t groups = (w.panels + panels_at_once - 1) / panels_at_once;
  Deal best{};
  double least = 0;
  for (uint32_t slices = 1; slices <= w.steps && slices <= resources.multiprocessors; ++slices) {
    const uint32_t blocks = std::min(resources.multiprocessors / slices, groups);
    const uint32_t steps = (w.steps + slices - 1) / slices, each = (groups + blocks - 1) / blocks;
    if (shared_bytes(steps) + kDeclaredBytes > resources.shared_limit) continue;
    if (uint64_t{slices} * n * 16 * w.panels > resources.part_floats) break;
    // In steps of a share. To write a part of a group for a token and to read it again takes a hundredth of one.
    const double cost = each * steps / static_cast<double>(shares) +
                        0.01 * n * slices * groups / static_cast<double>(resources.multiprocessors);
    if (best.slices != 0 && cost >= least) continue;
    least = cost;
    best = {slices, blocks, {w.steps / slices, w.steps % slices}, {groups / blocks, groups % blocks}};
  }
  return best;
}

// Calls f with the matrix' decoder and the tiles that n tokens take.
template <typename F>
auto with_tiles(const TrellisMatrix& w, uint32_t n, F f) {
  return with_bytes(w, [&](auto decoder) {
    if (n <= 8) return f(decoder, std::integral_constant<unsigned, 1>());
    if (n <= 16) return f(decoder, std::integral_constant<unsigned, 2>());
    if (n <= 32) return f(decoder, std::integral_constant<unsigned, 4>());
    return f(decoder, std::integral_constant<unsigned, kFewTokens / 8>());
  });
}

}  // namespace upg::cuda
