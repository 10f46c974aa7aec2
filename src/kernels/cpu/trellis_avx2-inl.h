// Manifold trellis on AVX2: as trellis_avx512-inl.h with eight rows a register. Include after a definition of kBias,
// what is added to levels (0 or 128), and of dot(), the products of one block, and expand UPG_TRELLIS_KERNELS once.
#pragma once

#include <immintrin.h>

#include "codec/layout/trellis.h"
#include "kernels/args.h"
#include "kernels/cpu/mdcsr_avx2-inl.h"
//
#include "kernels/cpu/prefetch-inl.h"
#include "kernels/cpu/residual-inl.h"

namespace upg::kernels {
namespace {

inline __m256i nibble_mask() { return _mm256_set1_epi8(15); }
inline __m256i high(__m256i x) { return _mm256_srli_epi32(x, 4); }
inline __m256i merge(int mask, __m256i a, __m256i b) {  // mask of each byte ? a : b
  const __m256i m = _mm256_set1_epi8(static_cast<char>(mask));
  return _mm256_or_si256(_mm256_and_si256(m, a), _mm256_andnot_si256(m, b));
}
inline __m256i load_word(const uint32_t* words, unsigned w) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + 16 * w));
}
inline __m256i table_register(const int8_t* entries, int bias) {  // [16]
  const __m128i flip = _mm_set1_epi8(static_cast<char>(bias));
  return _mm256_broadcastsi128_si256(_mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(entries)), flip));
}

// Shuffle tables, and how the words of half a tile (8 lanes) become levels, biased by 128 or not.
template <unsigned kBits>
struct Decoder;

// Of the places before a plane's codes, those in the previous nibble are in the words turned by one nibble: the chain
// bites its tail.
inline __m256i turn(__m256i x) { return _mm256_or_si256(_mm256_slli_epi32(x, 4), _mm256_srli_epi32(x, 28)); }

template <>
struct Decoder<2> {
  __m256i x, y;  // for the low and the high code of a nibble
  Decoder(const TrellisView& w, int bias) {
    int8_t tx[16], ty[16];
    for (unsigned i = 0; i < 16; ++i) {
      // A nibble of x: s, f, then the code; of y: the code, then s, f.
      tx[i] = w.table[i >> 3][(i & 3) ^ ((i >> 2) & 1)];
      ty[i] = w.table[(i >> 1) & 1][(i >> 2) ^ (i & 1)];
    }
    x = table_register(tx, bias);
    y = table_register(ty, bias);
  }
  void tile(const uint32_t* words, __m256i* out) const {
    const __m256i a = load_word(words, 0), b = load_word(words, 1);
    const __m256i ta = turn(a), tb = turn(b);
    // f = u1 ^ u3 already lies where it is wanted in the exclusive or of two words; s = u2 moves by one or three.
    low(a, _mm256_xor_si256(ta, tb), tb, out);
    high_codes(a, _mm256_xor_si256(a, tb), tb, out + 2);
    low(b, _mm256_xor_si256(a, tb), a, out + 4);
    high_codes(b, _mm256_xor_si256(a, b), a, out + 6);
  }
  void low(__m256i word, __m256i flips, __m256i rows, __m256i* out) const {
    plane(x, merge(0x33, word, merge(0x44, flips, _mm256_slli_epi32(rows, 3))), out);
  }
  void high_codes(__m256i word, __m256i flips, __m256i rows, __m256i* out) const {
    plane(y, merge(0xcc, word, merge(0x11, flips, _mm256_srli_epi32(rows, 1))), out);
  }
  static void plane(__m256i table, __m256i index, __m256i* out) {
    out[0] = _mm256_shuffle_epi8(table, _mm256_and_si256(index, nibble_mask()));
    out[1] = _mm256_shuffle_epi8(table, _mm256_and_si256(high(index), nibble_mask()));
  }
};

// Codes with their low bits flipped by f = u1 ^ u3.
inline __m256i flipped(__m256i word, __m256i u1, __m256i u3) {
  return _mm256_xor_si256(word, _mm256_and_si256(_mm256_xor_si256(u1, u3), _mm256_set1_epi8(0x11)));
}

template <>
struct Decoder<3> {
  __m256i table;
  Decoder(const TrellisView& w, int bias) {
    int8_t t[16];
    for (unsigned i = 0; i < 16; ++i) t[i] = w.table[i >> 3][i & 7];
    table = table_register(t, bias);
  }
  void tile(const uint32_t* words, __m256i* out) const {
    const __m256i a = load_word(words, 0), b = load_word(words, 1), c = load_word(words, 2);
    const __m256i ab = merge(0x11, _mm256_srli_epi32(a, 3), _mm256_srli_epi32(b, 2));
    const __m256i d = merge(0x33, ab, _mm256_srli_epi32(c, 1));
    const __m256i tb = turn(b), tc = turn(c), td = turn(d);
    codes(a, td, tc, tb, out);
    codes(b, a, td, tc, out + 2);
    codes(c, b, a, td, out + 4);
    codes(d, c, b, a, out + 6);
  }
  void codes(__m256i word, __m256i u1, __m256i u2, __m256i u3, __m256i* out) const {
    Decoder<2>::plane(table, merge(0x77, flipped(word, u1, u3), _mm256_slli_epi32(u2, 3)), out);
  }
};

template <>
struct Decoder<4> {
  __m256i even, odd;  // T[0] and T[1]
  Decoder(const TrellisView& w, int bias)
      : even(table_register(w.table[0], bias)), odd(table_register(w.table[1], bias)) {}
  void tile(const uint32_t* words, __m256i* out) const {
    const __m256i a = load_word(words, 0), b = load_word(words, 1), c = load_word(words, 2), d = load_word(words, 3);
    const __m256i tb = turn(b), tc = turn(c), td = turn(d);
    codes(a, td, tc, tb, out);
    codes(b, a, td, tc, out + 2);
    codes(c, b, a, td, out + 4);
    codes(d, c, b, a, out + 6);
  }
  void codes(__m256i word, __m256i u1, __m256i u2, __m256i u3, __m256i* out) const {
    const __m256i index = flipped(word, u1, u3);
    // blendv takes a byte's top bit: shift the bits that pick the row there.
    const __m256i lo = _mm256_and_si256(index, nibble_mask()), hi = _mm256_and_si256(high(index), nibble_mask());
    out[0] = _mm256_blendv_epi8(_mm256_shuffle_epi8(even, lo), _mm256_shuffle_epi8(odd, lo), _mm256_slli_epi32(u2, 7));
    out[1] = _mm256_blendv_epi8(_mm256_shuffle_epi8(even, hi), _mm256_shuffle_epi8(odd, hi), _mm256_slli_epi32(u2, 3));
  }
};

// Block scales of the tile's lanes 8 half .. 8 half + 7.
inline __m256 tile_steps(const uint8_t* scales, __m128i steps, unsigned half) {
  __m128i packed = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales));
  if (half) packed = _mm_srli_epi16(packed, 4);
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_shuffle_epi8(steps, _mm_and_si128(packed, _mm_set1_epi8(15)))));
}

// Row scales of half a panel times 2^-15; lanes past the last row get 0. Returns how many lanes are rows.
inline uint64_t half_panel_scales(const TrellisView& w, uint64_t panel, unsigned half, __m256* out) {
  const uint64_t row = panel * kTrellisPanelRows + 8 * half;
  const uint64_t lanes = row >= w.rows ? 0 : w.rows - row < 8 ? w.rows - row : 8;
  alignas(16) uint16_t bits[8] = {};
  if (lanes) __builtin_memcpy(bits, w.row_scales + row, lanes * 2);
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(bits)));
  *out = _mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)), _mm256_set1_ps(0x1p-15f));
  return lanes;
}

// The float operations of each token and block are the same whatever n_tokens is: its results have the same bits.
inline __m256 accumulate(__m256 acc, __m256i sum, __m256 steps, float scale) {
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(steps, _mm256_set1_ps(scale)), acc);
}

// Half a panel (8 rows), tokens [begin, end): at most kTokensAtOnce.
constexpr uint64_t kTokensAtOnce = 128;  // their sums fill 4 KiB

template <unsigned kBits>
inline void half_panel_products(const MatmulArgs& args, const TrellisView& w, const Decoder<kBits>& decoder,
                                __m128i steps, uint64_t panel, unsigned half, uint64_t begin, uint64_t end) {
  const uint32_t* words = w.codes + panel * w.blocks * kBits * 16 + 8 * half;
  const uint8_t* scales = w.block_scales + panel * w.blocks * kTrellisScaleBytes;
  alignas(32) float acc[kTokensAtOnce][8];
  for (uint64_t t = begin; t < end; ++t) _mm256_store_ps(acc[t - begin], _mm256_setzero_ps());
  for (uint64_t b = 0; b < w.blocks; ++b, words += kBits * 16, scales += kTrellisScaleBytes) {
    __m256i levels[kSlots];
    decoder.tile(words, levels);
    const __m256 block_steps = tile_steps(scales, steps, half);
    for (uint64_t t = begin; t < end; ++t) {
      const uint64_t i = b * args.n_tokens + t;
      float* total = acc[t - begin];
      _mm256_store_ps(total, accumulate(_mm256_load_ps(total), dot(levels, args.q8.q + 32 * i, args.q8.offset[i]),
                                        block_steps, args.q8.scale[i]));
    }
  }
  __m256 row_scale;
  const uint64_t lanes = half_panel_scales(w, panel, half, &row_scale);
  for (uint64_t t = begin; t < end && lanes; ++t) {
    float y[8];
    _mm256_storeu_ps(y, _mm256_mul_ps(_mm256_load_ps(acc[t - begin]), row_scale));
    __builtin_memcpy(args.y + t * args.y_stride + panel * kTrellisPanelRows + 8 * half, y, lanes * sizeof *y);
  }
}

template <unsigned kBits>
inline void one_token_panel(const MatmulArgs& args, const TrellisView& w, const Decoder<kBits>& decoder, __m128i steps,
                            uint64_t panel) {
  const uint32_t* words = w.codes + panel * w.blocks * kBits * 16;
  const uint8_t* scales = w.block_scales + panel * w.blocks * kTrellisScaleBytes;
  __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (uint64_t b = 0; b < w.blocks; ++b, words += kBits * 16, scales += kTrellisScaleBytes) {
    for (unsigned line = 0; line < kBits; ++line) prefetch_ahead(words + 16 * line);
    for (unsigned half = 0; half < 2; ++half) {
      __m256i levels[kSlots];
      decoder.tile(words + 8 * half, levels);
      acc[half] = accumulate(acc[half], dot(levels, args.q8.q + 32 * b, args.q8.offset[b]),
                             tile_steps(scales, steps, half), args.q8.scale[b]);
    }
  }
  for (unsigned half = 0; half < 2; ++half) {
    __m256 row_scale;
    const uint64_t lanes = half_panel_scales(w, panel, half, &row_scale);
    float y[8];
    _mm256_storeu_ps(y, _mm256_mul_ps(acc[half], row_scale));
    if (lanes) __builtin_memcpy(args.y + panel * kTrellisPanelRows + 8 * half, y, lanes * sizeof *y);
  }
}

template <unsigned kBits>
inline void matmul(const MatmulArgs& args) {
  const TrellisView& w = *static_cast<const TrellisView*>(args.weights);
  const Decoder<kBits> decoder(w, kBias);
  const __m128i steps = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w.steps));
  const uint64_t last = (args.row_end + kTrellisPanelRows - 1) / kTrellisPanelRows;
  for (uint64_t begin = 0; begin < args.n_tokens; begin += kTokensAtOnce) {
    const uint64_t end = begin + kTokensAtOnce < args.n_tokens ? begin + kTokensAtOnce : args.n_tokens;
    for (uint64_t panel = args.row_begin / kTrellisPanelRows; panel < last; ++panel) {
      if (args.n_tokens == 1) {
        one_token_panel<kBits>(args, w, decoder, steps, panel);
        continue;
      }
      for (unsigned half = 0; half < 2; ++half)
        half_panel_products<kBits>(args, w, decoder, steps, panel, half, begin, end);
    }
  }
  add_residual(w.residual, args);
}

template <unsigned kBits>
inline void unpack(const UnpackArgs& args) {
  const TrellisView& w = *static_cast<const TrellisView*>(args.weights);
  const Decoder<kBits> decoder(w, 0);
  const __m128i steps = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w.steps));
  for (unsigned half = 0; half < 2; ++half) {
    __m256 row_scale;
    half_panel_scales(w, args.panel, half, &row_scale);
    for (uint64_t col = args.col_begin; col < args.col_end; col += kTrellisBlockCols) {
      const uint64_t tile = args.panel * w.blocks + col / kTrellisBlockCols;
      __m256i levels[kSlots];
      decoder.tile(w.codes + tile * kBits * 16 + 8 * half, levels);
      const __m256 scale =
          _mm256_mul_ps(tile_steps(w.block_scales + tile * kTrellisScaleBytes, steps, half), row_scale);
      float* out = args.out + (col - args.col_begin) * 16 + 8 * half;
      const uint64_t n = args.col_end - col < kTrellisBlockCols ? args.col_end - col : kTrellisBlockCols;
      for (unsigned i = 0; i < n; ++i) {
        const __m256i level = _mm256_srai_epi32(
            _mm256_sll_epi32(levels[i / 4], _mm_cvtsi32_si128(static_cast<int>(24 - 8 * (i % 4)))), 24);
        _mm256_storeu_ps(out + i * 16, _mm256_mul_ps(_mm256_cvtepi32_ps(level), scale));
      }
    }
  }
}

template <unsigned kBits>
inline void unpack_and_residual(const UnpackArgs& args) {
  unpack<kBits>(args);
  add_residual(static_cast<const TrellisView*>(args.weights)->residual, args);
}

}  // namespace
}  // namespace upg::kernels

#define UPG_TRELLIS_KERNELS(isa)                                                                 \
  namespace upg::kernels {                                                                       \
  void matmul_trellis2_q8__##isa(const MatmulArgs& args) noexcept { matmul<2>(args); }           \
  void matmul_trellis3_q8__##isa(const MatmulArgs& args) noexcept { matmul<3>(args); }           \
  void matmul_trellis4_q8__##isa(const MatmulArgs& args) noexcept { matmul<4>(args); }           \
  void unpack_trellis2__##isa(const UnpackArgs& args) noexcept { unpack_and_residual<2>(args); } \
  void unpack_trellis3__##isa(const UnpackArgs& args) noexcept { unpack_and_residual<3>(args); } \
  void unpack_trellis4__##isa(const UnpackArgs& args) noexcept { unpack_and_residual<4>(args); } \
  }
