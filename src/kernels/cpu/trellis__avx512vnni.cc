// Manifold trellis on AVX-512 VNNI: a lane is a row, a register a word of 16 rows, and one byte shuffle of its nibbles
// four weights of each row. See codec/layout/trellis.h for the layout.
#include <immintrin.h>

#include "codec/layout/trellis.h"
#include "kernels/args.h"
#include "kernels/cpu/mdcsr_avx512-inl.h"
//
#include "kernels/cpu/residual-inl.h"

namespace upg::kernels {
namespace {

constexpr unsigned kSlots = 8;  // of four columns: slot s holds columns 4 s .. 4 s + 3 of the block

inline __m512i nibble_mask() { return _mm512_set1_epi8(15); }
inline __m512i high(__m512i x) { return _mm512_srli_epi32(x, 4); }
inline __m512i merge(__m512i mask, __m512i a, __m512i b) {  // mask ? a : b
  return _mm512_ternarylogic_epi32(mask, a, b, 0xca);
}
inline __m512i load_word(const uint32_t* words, unsigned w) { return _mm512_loadu_si512(words + 16 * w); }

// Shuffle tables and how the words of one tile become their bytes. Levels are biased by `bias`, so that they can be the
// unsigned side of vpdpbusd (128) or stay signed (0).
template <unsigned kBits>
struct Decoder;

inline __m512i table_register(const int8_t* entries, int bias) {  // [16]
  alignas(16) int8_t biased[16];
  for (int i = 0; i < 16; ++i) biased[i] = static_cast<int8_t>(entries[i] ^ (bias ? -128 : 0));
  return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(biased)));
}

// Of the places before a plane's codes, those in the previous nibble are in the words turned by one nibble: the chain
// bites its tail.
inline __m512i turn(__m512i word) { return _mm512_rol_epi32(word, 4); }
inline __m512i every_byte(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }

template <>
struct Decoder<2> {
  __m512i x, y;  // for the low and the high code of a nibble
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
  void tile(const uint32_t* words, __m512i* out) const {
    const __m512i a = load_word(words, 0), b = load_word(words, 1);
    const __m512i ta = turn(a), tb = turn(b);
    // f = u1 ^ u3 already lies where it is wanted in the exclusive or of two words; s = u2 moves by one or three.
    low(a, _mm512_xor_si512(ta, tb), tb, out);
    high_codes(a, _mm512_xor_si512(a, tb), tb, out + 2);
    low(b, _mm512_xor_si512(a, tb), a, out + 4);
    high_codes(b, _mm512_xor_si512(a, b), a, out + 6);
  }
  void low(__m512i word, __m512i flips, __m512i rows, __m512i* out) const {
    const __m512i above = merge(every_byte(0x44), flips, _mm512_slli_epi32(rows, 3));
    plane(x, merge(every_byte(0x33), word, above), out);
  }
  void high_codes(__m512i word, __m512i flips, __m512i rows, __m512i* out) const {
    const __m512i below = merge(every_byte(0x11), flips, _mm512_srli_epi32(rows, 1));
    plane(y, merge(every_byte(0xcc), word, below), out);
  }
  static void plane(__m512i table, __m512i index, __m512i* out) {
    out[0] = _mm512_shuffle_epi8(table, _mm512_and_si512(index, nibble_mask()));
    out[1] = _mm512_shuffle_epi8(table, _mm512_and_si512(high(index), nibble_mask()));
  }
};

// Codes with their low bits flipped by f: word ^ ((u1 ^ u3) & 1).
inline __m512i flipped(__m512i word, __m512i u1, __m512i u3) {
  return _mm512_ternarylogic_epi32(word, _mm512_xor_si512(u1, u3), every_byte(0x11), 0x78);  // word ^ (x & mask)
}

template <>
struct Decoder<3> {
  __m512i table;
  Decoder(const TrellisView& w, int bias) {
    int8_t t[16];
    for (unsigned i = 0; i < 16; ++i) t[i] = w.table[i >> 3][i & 7];
    table = table_register(t, bias);
  }
  void tile(const uint32_t* words, __m512i* out) const {
    const __m512i a = load_word(words, 0), b = load_word(words, 1), c = load_word(words, 2);
    // Plane 3 from the spare bits: bit 0 of a's, bit 1 of b's, bit 2 of c's; its own bit 3 is rubbish.
    const __m512i ab = merge(every_byte(0x11), _mm512_srli_epi32(a, 3), _mm512_srli_epi32(b, 2));
    const __m512i d = merge(every_byte(0x33), ab, _mm512_srli_epi32(c, 1));
    const __m512i tb = turn(b), tc = turn(c), td = turn(d);
    codes(a, td, tc, tb, out);
    codes(b, a, td, tc, out + 2);
    codes(c, b, a, td, out + 4);
    codes(d, c, b, a, out + 6);
  }
  void codes(__m512i word, __m512i u1, __m512i u2, __m512i u3, __m512i* out) const {
    const __m512i index = merge(every_byte(0x77), flipped(word, u1, u3), _mm512_slli_epi32(u2, 3));
    Decoder<2>::plane(table, index, out);
  }
};

template <>
struct Decoder<4> {
  __m512i even, odd;  // T[0] and T[1]
  Decoder(const TrellisView& w, int bias)
      : even(table_register(w.table[0], bias)), odd(table_register(w.table[1], bias)) {}
  void tile(const uint32_t* words, __m512i* out) const {
    const __m512i a = load_word(words, 0), b = load_word(words, 1), c = load_word(words, 2), d = load_word(words, 3);
    const __m512i tb = turn(b), tc = turn(c), td = turn(d);
    codes(a, td, tc, tb, out);
    codes(b, a, td, tc, out + 2);
    codes(c, b, a, td, out + 4);
    codes(d, c, b, a, out + 6);
  }
  void codes(__m512i word, __m512i u1, __m512i u2, __m512i u3, __m512i* out) const {
    const __m512i index = flipped(word, u1, u3);
    const __m512i lo = _mm512_and_si512(index, nibble_mask()), hi = _mm512_and_si512(high(index), nibble_mask());
    out[0] =
        _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(even, lo), _mm512_test_epi8_mask(u2, every_byte(0x01)), odd, lo);
    out[1] =
        _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(even, hi), _mm512_test_epi8_mask(u2, every_byte(0x10)), odd, hi);
  }
};

// The tile's block scales, one a lane.
inline __m512 tile_steps(const uint8_t* scales, __m128i steps) {
  const __m128i packed = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales));
  const __m128i index = _mm_and_si128(_mm_unpacklo_epi64(packed, _mm_srli_epi16(packed, 4)), _mm_set1_epi8(15));
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_shuffle_epi8(steps, index)));
}

// Row scales of a panel times 2^-15; lanes past the last row get 0.
inline __m512 panel_scales(const TrellisView& w, uint64_t panel, __mmask16* lanes) {
  const uint64_t left = w.rows - panel * kTrellisPanelRows;
  *lanes = left >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << left) - 1u);
  const __m256i bits = _mm256_maskz_loadu_epi16(*lanes, w.row_scales + panel * kTrellisPanelRows);
  const __m512 scale = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  return _mm512_mul_ps(scale, _mm512_set1_ps(0x1p-15f));
}

template <unsigned kBits>
inline void gemv(const GemvArgs& args) {
  const TrellisView& w = *static_cast<const TrellisView*>(args.weights);
  const Decoder<kBits> decoder(w, 128);
  const __m128i steps = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w.steps));
  const uint64_t last = (args.row_end + kTrellisPanelRows - 1) / kTrellisPanelRows;
  for (uint64_t panel = args.row_begin / kTrellisPanelRows; panel < last; ++panel) {
    const uint32_t* words = w.codes + panel * w.blocks * kBits * 16;
    const uint8_t* scales = w.block_scales + panel * w.blocks * kTrellisScaleBytes;
    __m512 acc = _mm512_setzero_ps();
    for (uint64_t b = 0; b < w.blocks; ++b, words += kBits * 16, scales += kTrellisScaleBytes) {
      for (unsigned line = 0; line < kBits; ++line) _mm_prefetch(words + 1024 + 16 * line, _MM_HINT_T0);
      __m512i bytes[kSlots];
      decoder.tile(words, bytes);
      const int8_t* q = args.q8.q + b * kTrellisBlockCols;
      __m512i sum0 = _mm512_set1_epi32(-128 * args.q8.sum[b]);  // undoes the bias
      __m512i sum1 = _mm512_setzero_si512();
      for (unsigned s = 0; s < kSlots; s += 2) {
        int32_t even, odd;
        __builtin_memcpy(&even, q + 4 * s, 4);
        __builtin_memcpy(&odd, q + 4 * s + 4, 4);
        sum0 = _mm512_dpbusd_epi32(sum0, bytes[s], _mm512_set1_epi32(even));
        sum1 = _mm512_dpbusd_epi32(sum1, bytes[s + 1], _mm512_set1_epi32(odd));
      }
      const __m512 scale = _mm512_mul_ps(tile_steps(scales, steps), _mm512_set1_ps(args.q8.scale[b]));
      acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(sum0, sum1)), scale, acc);
    }
    __mmask16 lanes;
    const __m512 row_scale = panel_scales(w, panel, &lanes);
    _mm512_mask_storeu_ps(args.y + panel * kTrellisPanelRows, lanes, _mm512_mul_ps(acc, row_scale));
  }
}

template <unsigned kBits>
inline void unpack(const UnpackArgs& args) {
  const TrellisView& w = *static_cast<const TrellisView*>(args.weights);
  const Decoder<kBits> decoder(w, 0);
  const __m128i steps = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w.steps));
  __mmask16 lanes;
  const __m512 row_scale = panel_scales(w, args.panel, &lanes);
  for (uint64_t col = args.col_begin; col < args.col_end; col += kTrellisBlockCols) {
    const uint64_t tile = args.panel * w.blocks + col / kTrellisBlockCols;
    __m512i bytes[kSlots];
    decoder.tile(w.codes + tile * kBits * 16, bytes);
    const __m512 scale = _mm512_mul_ps(tile_steps(w.block_scales + tile * kTrellisScaleBytes, steps), row_scale);
    float* out = args.out + (col - args.col_begin) * 16;
    const uint64_t n = args.col_end - col;
    for (unsigned s = 0; s < kSlots; ++s) {
      for (unsigned b = 0; b < 4; ++b) {
        if (4 * s + b >= n) return;
        const __m512i level = _mm512_srai_epi32(_mm512_slli_epi32(bytes[s], 24 - 8 * b), 24);
        _mm512_storeu_ps(out + (4 * s + b) * 16, _mm512_mul_ps(_mm512_cvtepi32_ps(level), scale));
      }
    }
  }
}

template <unsigned kBits>
inline void gemv_and_residual(const GemvArgs& args) {
  gemv<kBits>(args);
  add_residual(static_cast<const TrellisView*>(args.weights)->residual, args);
}

template <unsigned kBits>
inline void unpack_and_residual(const UnpackArgs& args) {
  unpack<kBits>(args);
  add_residual(static_cast<const TrellisView*>(args.weights)->residual, args);
}

}  // namespace

void gemv_trellis2_q8__avx512vnni(const GemvArgs& args) noexcept { gemv_and_residual<2>(args); }
void gemv_trellis3_q8__avx512vnni(const GemvArgs& args) noexcept { gemv_and_residual<3>(args); }
void gemv_trellis4_q8__avx512vnni(const GemvArgs& args) noexcept { gemv_and_residual<4>(args); }
void unpack_trellis2__avx512vnni(const UnpackArgs& args) noexcept { unpack_and_residual<2>(args); }
void unpack_trellis3__avx512vnni(const UnpackArgs& args) noexcept { unpack_and_residual<3>(args); }
void unpack_trellis4__avx512vnni(const UnpackArgs& args) noexcept { unpack_and_residual<4>(args); }

}  // namespace upg::kernels
