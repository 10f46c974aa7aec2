// Many tokens by AMX: a decoded block is a tile as it stands (eight rows of 16 lanes with four columns each), the int8
// activations of 16 tokens are another, and one instruction multiplies them. The sums of each block become floats and
// are scaled as elsewhere, in the same order: the same bits. Fewer tokens go the way of AVX-512.
#include "kernels/cpu/mdcsr_avx512-inl.h"
//
#include "kernels/cpu/table_vbmi-inl.h"
//
#include "kernels/cpu/trellis_avx512-inl.h"

namespace upg::kernels {
namespace {

constexpr uint64_t kGroup = 16;  // tokens of a tile
constexpr uint64_t kMaxGroups = kTokensAtOnce / kGroup;
// Blocks that are decoded, then multiplied: their sums wait in the first-level cache, and their activations, which lie
// [block][token], are that many streams through memory.
constexpr uint64_t kChunk = 4;

// Tiles 0 and 1: the sums of two panels, int32 [16 tokens][16 rows]; 2: activations, int8 [16 tokens][32 columns]; 3
// and 4: the weights of two panels, int8 [8][16 rows][4 columns].
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 32, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 8, 8};
};
static_assert(sizeof(TileShapes) == 64);

// Not the compiler's intrinsics: GCC 12's do not say what memory they read.
inline void configure_tiles(const TileShapes& shapes) { __asm__ volatile("ldtilecfg %0" ::"m"(shapes)); }
inline void release_tiles() { __asm__ volatile("tilerelease"); }
template <unsigned kTile>
inline void load_tile(const int8_t* from, uint64_t row_bytes) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(row_bytes), "i"(kTile) : "memory");
}
template <unsigned kSums, unsigned kTokens, unsigned kWeights>
inline void multiply_tiles(int32_t (*sums)[16]) {
  __asm__ volatile(
      "tilezero %%tmm%c2\n\t"
      "tdpbssd %%tmm%c4, %%tmm%c3, %%tmm%c2\n\t"
      "tilestored %%tmm%c2, (%0,%1,1)" ::"r"(sums),
      "r"(uint64_t{64}), "i"(kSums), "i"(kTokens), "i"(kWeights)
      : "memory");
}

template <unsigned kPanels>
struct Chunk {
  alignas(64) int8_t levels[kChunk][kPanels][kSlots][64];
  alignas(64) float steps[kChunk][kPanels][16];
};

// Adds the products of the first `n` blocks of `chunk`, which begins at `block`, with kPanels panels and the 16 tokens
// from `token` on. Loading a tile takes as long as multiplying one, so two panels share the activations; two groups of
// tokens that share weights as well gave nothing more.
template <unsigned kPanels>
inline void multiply(const MatmulArgs& args, const Chunk<kPanels>& chunk, uint64_t block, uint64_t n, uint64_t token,
                     float (&total)[kPanels][kGroup][16]) {
  alignas(64) int32_t sums[kPanels][kChunk][kGroup][16];
  const uint64_t first = block * args.n_tokens + token;
  for (uint64_t i = 0; i < n; ++i) {
    load_tile<2>(args.q8.q + 32 * (first + i * args.n_tokens), 32);
    load_tile<3>(chunk.levels[i][0][0], 64);
    multiply_tiles<0, 2, 3>(sums[0][i]);
    if constexpr (kPanels == 1) continue;
    load_tile<4>(chunk.levels[i][kPanels - 1][0], 64);
    multiply_tiles<1, 2, 4>(sums[kPanels - 1][i]);
  }
  for (unsigned p = 0; p < kPanels; ++p) {
    __m512 acc[kGroup];
    UPG_UNROLL
    for (unsigned t = 0; t < kGroup; ++t) acc[t] = _mm512_load_ps(total[p][t]);
    for (uint64_t i = 0; i < n; ++i) {
      const __m512 steps = _mm512_load_ps(chunk.steps[i][p]);
      const float* scales = args.q8.scale + first + i * args.n_tokens;
      UPG_UNROLL
      for (unsigned t = 0; t < kGroup; ++t)
        acc[t] = accumulate(acc[t], _mm512_load_si512(sums[p][i][t]), steps, scales[t]);
    }
    UPG_UNROLL
    for (unsigned t = 0; t < kGroup; ++t) _mm512_store_ps(total[p][t], acc[t]);
  }
}

// Tokens [begin, end), from 16 to 128, with kPanels panels from `index` on. The last group ends with the last token,
// and may do again what the one before it did.
template <unsigned kBits, unsigned kPanels>
inline void tile_tokens(const MatmulArgs& args, const TrellisView& w, const Decoder<kBits>& decoder, const Steps& steps,
                        uint64_t index, uint64_t begin, uint64_t end) {
  Chunk<kPanels> chunk;
  alignas(64) float total[kMaxGroups][kPanels][kGroup][16];
  uint64_t tokens[kMaxGroups], groups = 0;
  for (uint64_t t = begin; t < end; t += kGroup) tokens[groups++] = t + kGroup <= end ? t : end - kGroup;
  __builtin_memset(total, 0, groups * sizeof total[0]);
  for (uint64_t block = 0; block < w.blocks; block += kChunk) {
    const uint64_t n = w.blocks - block < kChunk ? w.blocks - block : kChunk;
    for (uint64_t i = 0; i < n; ++i) {
      decode_block<kBits, kPanels>(w, decoder, index, block + i, chunk.levels[i]);
      for (unsigned p = 0; p < kPanels; ++p) {
        const uint8_t* scales = Panel<kBits>(w, index + p).scales + (block + i) * kTrellisScaleBytes;
        _mm512_store_ps(chunk.steps[i][p], steps.lookup(scales));
      }
    }
    for (uint64_t g = 0; g < groups; ++g) multiply(args, chunk, block, n, tokens[g], total[g]);
  }
  for (unsigned p = 0; p < kPanels; ++p) {
    __mmask16 lanes;
    const __m512 row_scale = panel_scales(w, index + p, &lanes);
    float* y = args.y + (index + p) * kTrellisPanelRows;
    for (uint64_t g = 0; g < groups; ++g)
      for (uint64_t t = 0; t < kGroup; ++t)
        _mm512_mask_storeu_ps(y + (tokens[g] + t) * args.y_stride, lanes,
                              _mm512_mul_ps(_mm512_load_ps(total[g][p][t]), row_scale));
  }
}

template <unsigned kBits>
inline void tile_matmul(const MatmulArgs& args) {
  if (args.n_tokens < kGroup) return matmul<kBits>(args);
  const TrellisView& w = *static_cast<const TrellisView*>(args.weights);
  const Decoder<kBits> decoder(w, 0);
  const Steps steps(w.steps);
  configure_tiles({});
  each_pass(args, [&](auto panels, uint64_t panel, uint64_t begin, uint64_t end) {
    tile_tokens<kBits, decltype(panels)::kCount>(args, w, decoder, steps, panel, begin, end);
  });
  release_tiles();
  add_residual(w.residual, args);
}

}  // namespace

void matmul_trellis2_q8__amxint8(const MatmulArgs& args) noexcept { tile_matmul<2>(args); }
void matmul_trellis3_q8__amxint8(const MatmulArgs& args) noexcept { tile_matmul<3>(args); }
void matmul_trellis4_q8__amxint8(const MatmulArgs& args) noexcept { tile_matmul<4>(args); }

}  // namespace upg::kernels
