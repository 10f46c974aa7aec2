// Manifold trellis on AVX-512 VNNI: a lane is a row, a register a word of 16 rows, and one byte shuffle of its nibbles
// four weights of each row. See codec/layout/trellis.h for the layout. Include after mdcsr_avx512-inl.h and
// definitions of Table, the lookup of 16 entries by each byte's low nibble, and of step_indices(), which puts a tile's
// block scales, given in each lane of 64 bits, one in each of 32 (bits above the low four mean nothing), and expand
// UPG_TRELLIS_KERNELS once.
#pragma once

#include <immintrin.h>

#include "codec/layout/trellis.h"
#include "kernels/args.h"
#include "kernels/cpu/prefetch-inl.h"
#include "kernels/cpu/residual-inl.h"
#include "kernels/cpu/unroll-inl.h"

namespace upg::kernels {
namespace {

constexpr unsigned kSlots = 8;  // of four columns: slot s holds columns 4 s .. 4 s + 3 of the block

inline __m512i merge(int mask, __m512i a, __m512i b) {  // mask of each byte ? a : b
  return _mm512_ternarylogic_epi32(_mm512_set1_epi8(static_cast<char>(mask)), a, b, 0xca);
}
inline __m512i load_word(const uint32_t* words, unsigned w) { return _mm512_loadu_si512(words + 16 * w); }
inline __m512i high(__m512i x) { return _mm512_srli_epi32(x, 4); }
// Of the places before a plane's codes, those in the previous nibble are in the words turned by one nibble: the chain
// bites its tail.
inline __m512i turn(__m512i word) { return _mm512_rol_epi32(word, 4); }
inline __m512i xor3(__m512i a, __m512i b, __m512i c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
// Codes with their low bits flipped by f: word ^ ((u1 ^ u3) & 1).
inline __m512i flipped(__m512i word, __m512i u1, __m512i u3) {
  return _mm512_ternarylogic_epi32(word, _mm512_xor_si512(u1, u3), _mm512_set1_epi8(0x11), 0x78);  // word ^ (x & mask)
}

// Shuffle tables and how the words of one tile become the bytes of its slots: levels biased by `bias`, so that they can
// be the unsigned side of vpdpbusd (128), or signed (0).
template <unsigned kBits>
struct Decoder;

inline Table biased_table(const int8_t* entries, int bias) {  // [16]
  alignas(16) int8_t biased[16];
  for (int i = 0; i < 16; ++i) biased[i] = static_cast<int8_t>(entries[i] ^ (bias ? -128 : 0));
  return Table(_mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(biased))));
}

template <>
struct Decoder<2> {
  Table x, y;  // for the low and the high code of a nibble
  Decoder(const TrellisView& w, int bias) {
    int8_t tx[16], ty[16];
    for (unsigned i = 0; i < 16; ++i) {
      // A nibble of x: s, f, then the code; of y: the code, then s, f.
      tx[i] = w.table[i >> 3][(i & 3) ^ ((i >> 2) & 1)];
      ty[i] = w.table[(i >> 1) & 1][(i >> 2) ^ (i & 1)];
    }
    x = biased_table(tx, bias);
    y = biased_table(ty, bias);
  }
  struct Words {
    __m512i a, b, ta, tb;
    explicit Words(const uint32_t* words) : a(load_word(words, 0)), b(load_word(words, 1)), ta(turn(a)), tb(turn(b)) {}
  };
  // f = u1 ^ u3 already lies where it is wanted in the exclusive or of two words; s = u2 moves by one or three.
  template <unsigned kPlane>
  void plane(const Words& w, __m512i* out) const {
    if constexpr (kPlane == 0) low(w.a, _mm512_xor_si512(w.ta, w.tb), w.tb, out);
    if constexpr (kPlane == 1) high_codes(w.a, _mm512_xor_si512(w.a, w.tb), w.tb, out);
    if constexpr (kPlane == 2) low(w.b, _mm512_xor_si512(w.a, w.tb), w.a, out);
    if constexpr (kPlane == 3) high_codes(w.b, _mm512_xor_si512(w.a, w.b), w.a, out);
  }
  void low(__m512i word, __m512i flips, __m512i rows, __m512i* out) const {
    x.plane(merge(0x33, word, merge(0x44, flips, _mm512_slli_epi32(rows, 3))), out);
  }
  void high_codes(__m512i word, __m512i flips, __m512i rows, __m512i* out) const {
    y.plane(merge(0xcc, word, merge(0x11, flips, _mm512_srli_epi32(rows, 1))), out);
  }
};

template <>
struct Decoder<3> {
  Table abc, d;  // planes 0 to 2: s, then the code; plane 3: the code, its bits reversed, then s
  Decoder(const TrellisView& w, int bias) {
    int8_t t[16], reversed[16];
    for (unsigned i = 0; i < 16; ++i) t[i] = w.table[i >> 3][i & 7];
    for (unsigned i = 0; i < 16; ++i) reversed[i] = w.table[i & 1][(i >> 3) | ((i >> 1) & 2) | ((i << 1) & 4)];
    abc = biased_table(t, bias);
    d = biased_table(reversed, bias);
  }
  // td: plane 3 lies in the top bits, its low bit in a's: turning by one more puts that where planes 0 to 2 have
  // theirs.
  struct Words {
    __m512i a, b, c, td, tb, tc, a3;
    explicit Words(const uint32_t* words)
        : a(load_word(words, 0)),
          b(load_word(words, 1)),
          c(load_word(words, 2)),
          td(_mm512_rol_epi32(a, 1)),
          tb(turn(b)),
          tc(turn(c)),
          a3(_mm512_slli_epi32(a, 3)) {}
  };
  template <unsigned kPlane>
  void plane(const Words& w, __m512i* out) const {
    if constexpr (kPlane == 0) abc.plane(merge(0x77, flipped(w.a, w.td, w.tb), _mm512_rol_epi32(w.c, 7)), out);
    if constexpr (kPlane == 1) abc.plane(merge(0x77, flipped(w.b, w.a, w.tc), turn(w.a)), out);
    if constexpr (kPlane == 2) abc.plane(merge(0x77, flipped(w.c, w.b, w.td), w.a3), out);
    if constexpr (kPlane == 3) {
      // Bits 3 to 1 of a nibble: the code's bits 0 (with f = c ^ a), 1 and 2; bit 0: s = b.
      const __m512i low_bit = xor3(w.a, w.a3, _mm512_slli_epi32(w.c, 3));
      const __m512i rest = merge(0x44, _mm512_srli_epi32(w.b, 1), _mm512_srli_epi32(w.c, 2));
      d.plane(merge(0x88, low_bit, merge(0x11, w.b, rest)), out);
    }
  }
};

template <>
struct Decoder<4> {
  Table even, odd;  // T[0] and T[1]
  Decoder(const TrellisView& w, int bias) : even(biased_table(w.table[0], bias)), odd(biased_table(w.table[1], bias)) {}
  struct Words {
    __m512i a, b, c, d, tb, tc, td;
    explicit Words(const uint32_t* words)
        : a(load_word(words, 0)),
          b(load_word(words, 1)),
          c(load_word(words, 2)),
          d(load_word(words, 3)),
          tb(turn(b)),
          tc(turn(c)),
          td(turn(d)) {}
  };
  template <unsigned kPlane>
  void plane(const Words& w, __m512i* out) const {
    if constexpr (kPlane == 0) codes(w.a, w.td, w.tc, w.tb, out);
    if constexpr (kPlane == 1) codes(w.b, w.a, w.td, w.tc, out);
    if constexpr (kPlane == 2) codes(w.c, w.b, w.a, w.td, out);
    if constexpr (kPlane == 3) codes(w.d, w.c, w.b, w.a, out);
  }
  void codes(__m512i word, __m512i u1, __m512i u2, __m512i u3, __m512i* out) const {
    Table::plane_of_two(even, odd, flipped(word, u1, u3), u2, out);
  }
};

template <unsigned kBits>
inline void decode_tile(const Decoder<kBits>& decoder, const uint32_t* words, __m512i* out) {
  const typename Decoder<kBits>::Words w(words);
  decoder.template plane<0>(w, out);
  decoder.template plane<1>(w, out + 2);
  decoder.template plane<2>(w, out + 4);
  decoder.template plane<3>(w, out + 6);
}

// A tile's block scales times 2^-15, one a lane. Activation scales are powers of two: the product of the two is a sum
// of exponents, which takes no slot of the two pipes that multiply. `unit` is the float's bits without its bias, so
// that the bits of an activation scale can be added as they are.
struct TileSteps {
  __m512i unit;
  __mmask16 lanes;  // whose step is not zero
  __m512 times(float scale) const {
    int32_t bits;
    __builtin_memcpy(&bits, &scale, 4);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(lanes, unit, _mm512_set1_epi32(bits)));
  }
};
struct Steps {
  __m512 table;
  explicit Steps(const uint8_t* steps)
      : table(_mm512_mul_ps(
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(steps)))),
            _mm512_set1_ps(0x1p-15f))) {}
  TileSteps tile(const uint8_t* scales) const {
    const __m512 steps = lookup(scales);
    return {_mm512_sub_epi32(_mm512_castps_si512(steps), _mm512_set1_epi32(127 << 23)),
            _mm512_cmp_ps_mask(steps, _mm512_setzero_ps(), _CMP_NEQ_OQ)};
  }
  __m512 lookup(const uint8_t* scales) const {
    int64_t packed;
    __builtin_memcpy(&packed, scales, 8);
    // vpermps takes the low four bits of each lane.
    return _mm512_permutexvar_ps(step_indices(_mm512_set1_epi64(packed)), table);
  }
};

// Row scales of a panel; lanes past the last row get 0.
inline __m512 panel_scales(const TrellisView& w, uint64_t panel, __mmask16* lanes) {
  const uint64_t left = w.rows - panel * kTrellisPanelRows;
  *lanes = left >= 16 ? static_cast<__mmask16>(0xffff) : static_cast<__mmask16>((1u << left) - 1u);
  const __m256i bits = _mm256_maskz_loadu_epi16(*lanes, w.row_scales + panel * kTrellisPanelRows);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// Four activations for every lane. A plain load and set1 becomes moves through general registers, at two thirds of the
// speed.
inline __m512i four_columns(const int8_t* q) {
  __m512i x;
  __asm__("vpbroadcastd %1, %0" : "=v"(x) : "m"(*reinterpret_cast<const int32_t __attribute__((may_alias))*>(q)));
  return x;
}

// Products of one block of one token with kPanels times 16 rows: 32 columns, exact.
template <unsigned kPanels>
inline void dot(const __m512i (&bytes)[kPanels][kSlots], const int8_t* q, int32_t offset, __m512i (&sum)[kPanels]) {
  __m512i even[kPanels], odd[kPanels];
  UPG_UNROLL
  for (unsigned p = 0; p < kPanels; ++p) {
    even[p] = _mm512_set1_epi32(offset);
    odd[p] = _mm512_setzero_si512();
  }
  UPG_UNROLL
  for (unsigned s = 0; s < kSlots; s += 2) {
    const __m512i x0 = four_columns(q + 4 * s), x1 = four_columns(q + 4 * s + 4);
    UPG_UNROLL
    for (unsigned p = 0; p < kPanels; ++p) {
      even[p] = _mm512_dpbusd_epi32(even[p], bytes[p][s], x0);
      odd[p] = _mm512_dpbusd_epi32(odd[p], bytes[p][s + 1], x1);
    }
  }
  UPG_UNROLL
  for (unsigned p = 0; p < kPanels; ++p) sum[p] = _mm512_add_epi32(even[p], odd[p]);
}

// The float operations of each token and block are the same whatever n_tokens is: its results have the same bits.
inline __m512 accumulate(__m512 acc, __m512i sum, const TileSteps& steps, float scale) {
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), steps.times(scale), acc);
}
// The same bits: for steps that only one token takes, and for Intel, where the pipes that multiply are those that add.
inline __m512 accumulate(__m512 acc, __m512i sum, __m512 steps, float scale) {
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(steps, _mm512_set1_ps(scale)), acc);
}

// Where the tiles of a panel lie.
template <unsigned kBits>
struct Panel {
  const uint32_t* words;
  const uint8_t* scales;
  Panel(const TrellisView& w, uint64_t panel)
      : words(w.codes + panel * w.blocks * kBits * 16),
        scales(w.block_scales + panel * w.blocks * kTrellisScaleBytes) {}
  void tile(uint64_t block, const Decoder<kBits>& decoder, __m512i* bytes) const {
    decode_tile(decoder, at(block), bytes);
  }
  const uint32_t* at(uint64_t block) const {  // asks for later ones
    const uint32_t* tile = words + block * kBits * 16;
    for (unsigned line = 0; line < kBits; ++line) prefetch_ahead(tile + 16 * line);
    return tile;
  }
  TileSteps steps(uint64_t block, const Steps& steps) const { return steps.tile(scales + block * kTrellisScaleBytes); }
};

// The two registers of one plane are multiplied, then hold that plane of the next block.
template <unsigned kPlane, unsigned kBits>
inline void dot_and_decode(const Decoder<kBits>& decoder, const typename Decoder<kBits>::Words& next, const int8_t* q,
                           __m512i* bytes, __m512i* even, __m512i* odd) {
  *even = _mm512_dpbusd_epi32(*even, bytes[2 * kPlane], four_columns(q + 8 * kPlane));
  *odd = _mm512_dpbusd_epi32(*odd, bytes[2 * kPlane + 1], four_columns(q + 8 * kPlane + 4));
  decoder.template plane<kPlane>(next, bytes + 2 * kPlane);
}

// A block is decoded between the products of the one before: from load to sum a block takes 70 cycles, and what waits
// for that leaves Intel's schedulers (97 entries) no room for the next (Emerald Rapids: 38 Gweights/s, with this 54).
template <unsigned kBits>
inline void one_token(const MatmulArgs& args, const TrellisView& w, const Decoder<kBits>& decoder, const Steps& steps,
                      uint64_t index) {
  const Panel<kBits> panel(w, index);
  __m512 acc = _mm512_setzero_ps();
  __m512i bytes[kSlots];
  if (w.blocks > 0) panel.tile(0, decoder, bytes);
  for (uint64_t b = 0; b < w.blocks; ++b) {
    const typename Decoder<kBits>::Words next(panel.at(b + 1 < w.blocks ? b + 1 : b));
    __m512i even = _mm512_set1_epi32(args.q8.offset[b]), odd = _mm512_setzero_si512();
    const int8_t* q = args.q8.q + 32 * b;
    dot_and_decode<0>(decoder, next, q, bytes, &even, &odd);
    dot_and_decode<1>(decoder, next, q, bytes, &even, &odd);
    dot_and_decode<2>(decoder, next, q, bytes, &even, &odd);
    dot_and_decode<3>(decoder, next, q, bytes, &even, &odd);
    acc = accumulate(acc, _mm512_add_epi32(even, odd), steps.lookup(panel.scales + b * kTrellisScaleBytes),
                     args.q8.scale[b]);
  }
  __mmask16 lanes;
  const __m512 row_scale = panel_scales(w, index, &lanes);
  _mm512_mask_storeu_ps(args.y + index * kTrellisPanelRows, lanes, _mm512_mul_ps(acc, row_scale));
}

template <unsigned kBits, unsigned kPanels>
inline void decode_block(const TrellisView& w, const Decoder<kBits>& decoder, uint64_t index, uint64_t block,
                         int8_t (&out)[kPanels][kSlots][64]) {
  for (unsigned p = 0; p < kPanels; ++p) {
    __m512i bytes[kSlots];
    Panel<kBits>(w, index + p).tile(block, decoder, bytes);
    UPG_UNROLL
    for (unsigned s = 0; s < kSlots; ++s) _mm512_store_si512(out[p][s], bytes[s]);
  }
}

// Tokens [begin, end), at most kTokensAtOnce of them, with kPanels panels: each tile is decoded once and multiplied
// with all. Two panels share the loads of activations, of which one alone would need more than there is time for.
constexpr uint64_t kTokensAtOnce = 128;  // their sums and 4 KiB of activations stay in the first-level cache

template <unsigned kBits, unsigned kPanels>
inline void many_tokens(const MatmulArgs& args, const TrellisView& w, const Decoder<kBits>& decoder, const Steps& steps,
                        uint64_t index, uint64_t begin, uint64_t end) {
  alignas(64) float acc[kTokensAtOnce][kPanels][16];
  for (uint64_t t = begin; t < end; ++t)
    for (unsigned p = 0; p < kPanels; ++p) _mm512_store_ps(acc[t - begin][p], _mm512_setzero_ps());
  alignas(64) int8_t decoded[2][kPanels][kSlots][64];
  decode_block<kBits, kPanels>(w, decoder, index, 0, decoded[0]);
  for (uint64_t b = 0; b < w.blocks; ++b) {
    __m512i bytes[kPanels][kSlots];
    TileSteps tile_steps[kPanels];
    UPG_UNROLL
    for (unsigned p = 0; p < kPanels; ++p) {
      tile_steps[p] = Panel<kBits>(w, index + p).steps(b, steps);
      UPG_UNROLL
      for (unsigned s = 0; s < kSlots; ++s) bytes[p][s] = _mm512_load_si512(decoded[b & 1][p][s]);
    }
    // The next block's tiles become ready while this one's tokens wait for their sums.
    if (b + 1 < w.blocks) decode_block<kBits, kPanels>(w, decoder, index, b + 1, decoded[(b + 1) & 1]);
#pragma GCC unroll 4
    for (uint64_t t = begin; t < end; ++t) {
      const uint64_t i = b * args.n_tokens + t;
      __m512i sum[kPanels];
      dot(bytes, args.q8.q + 32 * i, args.q8.offset[i], sum);
      UPG_UNROLL
      for (unsigned p = 0; p < kPanels; ++p) {
        float* total = acc[t - begin][p];
        _mm512_store_ps(total, accumulate(_mm512_load_ps(total), sum[p], tile_steps[p], args.q8.scale[i]));
      }
    }
  }
  for (unsigned p = 0; p < kPanels; ++p) {
    __mmask16 lanes;
    const __m512 row_scale = panel_scales(w, index + p, &lanes);
    float* y = args.y + (index + p) * kTrellisPanelRows;
    for (uint64_t t = begin; t < end; ++t)
      _mm512_mask_storeu_ps(y + t * args.y_stride, lanes, _mm512_mul_ps(_mm512_load_ps(acc[t - begin][p]), row_scale));
  }
}

template <unsigned kPanels>
struct Panels {
  static constexpr unsigned kCount = kPanels;
};

// Calls run(Panels<n>, first panel, first token, end of tokens) for all rows and tokens, two panels at once where there
// are two: in as few passes over the weights as can be, of about the same length.
template <typename Run>
inline void each_pass(const MatmulArgs& args, const Run& run) {
  const uint64_t first = args.row_begin / kTrellisPanelRows;
  const uint64_t last = (args.row_end + kTrellisPanelRows - 1) / kTrellisPanelRows;
  const uint64_t passes = (args.n_tokens + kTokensAtOnce - 1) / kTokensAtOnce;
  for (uint64_t pass = 0; pass < passes; ++pass) {
    const uint64_t begin = args.n_tokens * pass / passes, end = args.n_tokens * (pass + 1) / passes;
    uint64_t panel = first;
    for (; panel + 2 <= last; panel += 2) run(Panels<2>(), panel, begin, end);
    if (panel < last) run(Panels<1>(), panel, begin, end);
  }
}

template <unsigned kBits>
inline void matmul(const MatmulArgs& args) {
  const TrellisView& w = *static_cast<const TrellisView*>(args.weights);
  const Decoder<kBits> decoder(w, 128);
  const Steps steps(w.steps);
  if (args.n_tokens == 1) {
    const uint64_t last = (args.row_end + kTrellisPanelRows - 1) / kTrellisPanelRows;
    for (uint64_t panel = args.row_begin / kTrellisPanelRows; panel < last; ++panel)
      one_token<kBits>(args, w, decoder, steps, panel);
  } else {
    each_pass(args, [&](auto panels, uint64_t panel, uint64_t begin, uint64_t end) {
      many_tokens<kBits, decltype(panels)::kCount>(args, w, decoder, steps, panel, begin, end);
    });
  }
  add_residual(w.residual, args);
}

template <unsigned kBits>
inline void unpack(const UnpackArgs& args) {
  const TrellisView& w = *static_cast<const TrellisView*>(args.weights);
  const Decoder<kBits> decoder(w, 0);
  const Steps steps(w.steps);
  __mmask16 lanes;
  const __m512 row_scale = panel_scales(w, args.panel, &lanes);
  for (uint64_t col = args.col_begin; col < args.col_end; col += kTrellisBlockCols) {
    const uint64_t tile = args.panel * w.blocks + col / kTrellisBlockCols;
    __m512i bytes[kSlots];
    decode_tile(decoder, w.codes + tile * kBits * 16, bytes);
    const __m512 scale = _mm512_mul_ps(steps.lookup(w.block_scales + tile * kTrellisScaleBytes), row_scale);
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
