// Manifold trellis on AArch64 with dot products: as trellis_avx512-inl.h with four rows a register. sdot takes signed
// bytes on both sides, so that levels need no bias.
#include <arm_neon.h>

#include "codec/layout/trellis.h"
#include "kernels/args.h"
#include "kernels/cpu/mdcsr_neon-inl.h"
#include "kernels/cpu/residual-inl.h"
#include "kernels/cpu/unroll-inl.h"

namespace upg::kernels {
namespace {

constexpr unsigned kSlots = 8;   // of four columns: slot s holds columns 4 s .. 4 s + 3 of the block
constexpr unsigned kGroups = 4;  // of four rows
constexpr uint64_t kPrefetchBytes = 4 << 10;

inline uint32x4_t merge(int mask, uint32x4_t a, uint32x4_t b) {  // mask of each byte ? a : b
  return vbslq_u32(vreinterpretq_u32_u8(vdupq_n_u8(static_cast<uint8_t>(mask))), a, b);
}
inline uint32x4_t load_word(const uint32_t* words, unsigned w) { return vld1q_u32(words + 16 * w); }
template <int kBitsUp>
inline uint32x4_t rotate(uint32x4_t x) {
  return vsriq_n_u32(vshlq_n_u32(x, kBitsUp), x, 32 - kBitsUp);
}
// Of the places before a plane's codes, those in the previous nibble are in the words turned by one nibble: the chain
// bites its tail.
inline uint32x4_t turn(uint32x4_t word) { return rotate<4>(word); }
// Codes with their low bits flipped by f: word ^ ((u1 ^ u3) & 1).
inline uint32x4_t flipped(uint32x4_t word, uint32x4_t u1, uint32x4_t u3) {
  return veorq_u32(word, vandq_u32(veorq_u32(u1, u3), vreinterpretq_u32_u8(vdupq_n_u8(0x11))));
}
inline uint8x16_t low_nibbles(uint32x4_t x) { return vandq_u8(vreinterpretq_u8_u32(x), vdupq_n_u8(15)); }
inline uint8x16_t high_nibbles(uint32x4_t x) { return vshrq_n_u8(vreinterpretq_u8_u32(x), 4); }

inline void plane(int8x16_t table, uint32x4_t index, int8x16_t* out) {
  out[0] = vqtbl1q_s8(table, low_nibbles(index));
  out[1] = vqtbl1q_s8(table, high_nibbles(index));
}

// Lookup tables, and how the words of four rows become their levels.
template <unsigned kBits>
struct Decoder;

template <>
struct Decoder<2> {
  int8x16_t x, y;  // for the low and the high code of a nibble
  explicit Decoder(const TrellisView& w) {
    int8_t tx[16], ty[16];
    for (unsigned i = 0; i < 16; ++i) {
      // A nibble of x: s, f, then the code; of y: the code, then s, f.
      tx[i] = w.table[i >> 3][(i & 3) ^ ((i >> 2) & 1)];
      ty[i] = w.table[(i >> 1) & 1][(i >> 2) ^ (i & 1)];
    }
    x = vld1q_s8(tx);
    y = vld1q_s8(ty);
  }
  void tile(const uint32_t* words, int8x16_t* out) const {
    const uint32x4_t a = load_word(words, 0), b = load_word(words, 1);
    const uint32x4_t ta = turn(a), tb = turn(b);
    // f = u1 ^ u3 already lies where it is wanted in the exclusive or of two words; s = u2 moves by one or three.
    low(a, veorq_u32(ta, tb), tb, out);
    high_codes(a, veorq_u32(a, tb), tb, out + 2);
    low(b, veorq_u32(a, tb), a, out + 4);
    high_codes(b, veorq_u32(a, b), a, out + 6);
  }
  void low(uint32x4_t word, uint32x4_t flips, uint32x4_t rows, int8x16_t* out) const {
    plane(x, merge(0x33, word, merge(0x44, flips, vshlq_n_u32(rows, 3))), out);
  }
  void high_codes(uint32x4_t word, uint32x4_t flips, uint32x4_t rows, int8x16_t* out) const {
    plane(y, merge(0xcc, word, merge(0x11, flips, vshrq_n_u32(rows, 1))), out);
  }
};

template <>
struct Decoder<3> {
  int8x16_t abc, d;  // planes 0 to 2: s, then the code; plane 3: the code, its bits reversed, then s
  explicit Decoder(const TrellisView& w) {
    int8_t t[16], reversed[16];
    for (unsigned i = 0; i < 16; ++i) t[i] = w.table[i >> 3][i & 7];
    for (unsigned i = 0; i < 16; ++i) reversed[i] = w.table[i & 1][(i >> 3) | ((i >> 1) & 2) | ((i << 1) & 4)];
    abc = vld1q_s8(t);
    d = vld1q_s8(reversed);
  }
  void tile(const uint32_t* words, int8x16_t* out) const {
    const uint32x4_t a = load_word(words, 0), b = load_word(words, 1), c = load_word(words, 2);
    // Plane 3 lies in the top bits, its low bit in a's: turning by one more puts that where planes 0 to 2 have theirs.
    const uint32x4_t td = rotate<1>(a), tb = turn(b), tc = turn(c), a3 = vshlq_n_u32(a, 3);
    plane(abc, merge(0x77, flipped(a, td, tb), rotate<7>(c)), out);
    plane(abc, merge(0x77, flipped(b, a, tc), turn(a)), out + 2);
    plane(abc, merge(0x77, flipped(c, b, td), a3), out + 4);
    // Bits 3 to 1 of a nibble: the code's bits 0 (with f = c ^ a), 1 and 2; bit 0: s = b.
    const uint32x4_t low_bit = veorq_u32(veorq_u32(a, a3), vshlq_n_u32(c, 3));
    const uint32x4_t rest = merge(0x44, vshrq_n_u32(b, 1), vshrq_n_u32(c, 2));
    plane(d, merge(0x88, low_bit, merge(0x11, b, rest)), out + 6);
  }
};

template <>
struct Decoder<4> {
  int8x16x2_t both;  // T[0] and T[1]
  explicit Decoder(const TrellisView& w) : both{{vld1q_s8(w.table[0]), vld1q_s8(w.table[1])}} {}
  void tile(const uint32_t* words, int8x16_t* out) const {
    const uint32x4_t a = load_word(words, 0), b = load_word(words, 1), c = load_word(words, 2), d = load_word(words, 3);
    const uint32x4_t tb = turn(b), tc = turn(c), td = turn(d);
    codes(a, td, tc, tb, out);
    codes(b, a, td, tc, out + 2);
    codes(c, b, a, td, out + 4);
    codes(d, c, b, a, out + 6);
  }
  // The bit that picks the row becomes bit 4 of the index.
  void codes(uint32x4_t word, uint32x4_t u1, uint32x4_t u2, uint32x4_t u3, int8x16_t* out) const {
    const uint32x4_t index = flipped(word, u1, u3);
    const uint8x16_t row = vdupq_n_u8(0x10);
    const uint8x16_t low_row = vandq_u8(vreinterpretq_u8_u32(vshlq_n_u32(u2, 4)), row);
    out[0] = vqtbl2q_s8(both, vorrq_u8(low_nibbles(index), low_row));
    out[1] = vqtbl2q_s8(both, vorrq_u8(high_nibbles(index), vandq_u8(vreinterpretq_u8_u32(u2), row)));
  }
};

// Block scales of a tile, four rows a register.
inline void tile_steps(const uint8_t* scales, uint8x16_t steps, float32x4_t* out) {
  const uint8x8_t packed = vld1_u8(scales);
  const uint8x16_t index = vcombine_u8(vand_u8(packed, vdup_n_u8(15)), vshr_n_u8(packed, 4));
  const uint8x16_t step = vqtbl1q_u8(steps, index);
  const uint16x8_t low = vmovl_u8(vget_low_u8(step)), high = vmovl_u8(vget_high_u8(step));
  out[0] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(low)));
  out[1] = vcvtq_f32_u32(vmovl_u16(vget_high_u16(low)));
  out[2] = vcvtq_f32_u32(vmovl_u16(vget_low_u16(high)));
  out[3] = vcvtq_f32_u32(vmovl_u16(vget_high_u16(high)));
}

// Row scales of a panel times 2^-15, 0 past the last row. Returns how many rows there are.
inline uint64_t panel_scales(const TrellisView& w, uint64_t panel, float32x4_t* out) {
  const uint64_t left = w.rows - panel * kTrellisPanelRows;
  const uint64_t rows = left < kTrellisPanelRows ? left : kTrellisPanelRows;
  uint16_t bits[kTrellisPanelRows] = {};
  __builtin_memcpy(bits, w.row_scales + panel * kTrellisPanelRows, rows * sizeof *bits);
  for (unsigned g = 0; g < kGroups; ++g)
    out[g] = vmulq_n_f32(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(bits + 4 * g), 16)), 0x1p-15f);
  return rows;
}

// Products of one block of one token: 32 columns of 4 rows, exact.
inline int32x4_t dot(const int8x16_t* levels, const int8_t* q) {
  const int8x16_t low = vld1q_s8(q), high = vld1q_s8(q + 16);
  int32x4_t even = vdotq_laneq_s32(vdupq_n_s32(0), levels[0], low, 0);
  int32x4_t odd = vdotq_laneq_s32(vdupq_n_s32(0), levels[1], low, 1);
  even = vdotq_laneq_s32(even, levels[2], low, 2);
  odd = vdotq_laneq_s32(odd, levels[3], low, 3);
  even = vdotq_laneq_s32(even, levels[4], high, 0);
  odd = vdotq_laneq_s32(odd, levels[5], high, 1);
  even = vdotq_laneq_s32(even, levels[6], high, 2);
  odd = vdotq_laneq_s32(odd, levels[7], high, 3);
  return vaddq_s32(even, odd);
}

// The float operations of each token and block are the same whatever n_tokens is: its results have the same bits.
inline float32x4_t accumulate(float32x4_t acc, int32x4_t sum, float32x4_t steps, float scale) {
  return vfmaq_f32(acc, vcvtq_f32_s32(sum), vmulq_n_f32(steps, scale));
}

template <unsigned kBits>
inline void one_token(const MatmulArgs& args, const TrellisView& w, const Decoder<kBits>& decoder, uint8x16_t steps,
                      uint64_t panel) {
  const uint32_t* words = w.codes + panel * w.blocks * kBits * 16;
  const uint8_t* scales = w.block_scales + panel * w.blocks * kTrellisScaleBytes;
  float32x4_t acc[kGroups] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
  for (uint64_t b = 0; b < w.blocks; ++b, words += kBits * 16, scales += kTrellisScaleBytes) {
    for (unsigned line = 0; line < kBits; ++line)
      __builtin_prefetch(reinterpret_cast<const char*>(words + 16 * line) + kPrefetchBytes);
    float32x4_t block_steps[kGroups];
    tile_steps(scales, steps, block_steps);
    UPG_UNROLL
    for (unsigned g = 0; g < kGroups; ++g) {
      int8x16_t levels[kSlots];
      decoder.tile(words + 4 * g, levels);
      acc[g] = accumulate(acc[g], dot(levels, args.q8.q + 32 * b), block_steps[g], args.q8.scale[b]);
    }
  }
  float32x4_t row_scales[kGroups];
  const uint64_t rows = panel_scales(w, panel, row_scales);
  float y[kTrellisPanelRows];
  for (unsigned g = 0; g < kGroups; ++g) vst1q_f32(y + 4 * g, vmulq_f32(acc[g], row_scales[g]));
  __builtin_memcpy(args.y + panel * kTrellisPanelRows, y, rows * sizeof *y);
}

// Tokens [begin, end), at most kTokensAtOnce of them: the levels of four rows stay in registers for all.
constexpr uint64_t kTokensAtOnce = 128;

template <unsigned kBits>
inline void many_tokens(const MatmulArgs& args, const TrellisView& w, const Decoder<kBits>& decoder, uint8x16_t steps,
                        uint64_t panel, uint64_t begin, uint64_t end) {
  float acc[kTokensAtOnce][kTrellisPanelRows];
  for (uint64_t t = begin; t < end; ++t) __builtin_memset(acc[t - begin], 0, sizeof acc[0]);
  const uint32_t* words = w.codes + panel * w.blocks * kBits * 16;
  const uint8_t* scales = w.block_scales + panel * w.blocks * kTrellisScaleBytes;
  for (uint64_t b = 0; b < w.blocks; ++b, words += kBits * 16, scales += kTrellisScaleBytes) {
    float32x4_t block_steps[kGroups];
    tile_steps(scales, steps, block_steps);
    for (unsigned g = 0; g < kGroups; ++g) {
      int8x16_t levels[kSlots];
      decoder.tile(words + 4 * g, levels);
      for (uint64_t t = begin; t < end; ++t) {
        const uint64_t i = b * args.n_tokens + t;
        float* total = acc[t - begin] + 4 * g;
        vst1q_f32(total,
                  accumulate(vld1q_f32(total), dot(levels, args.q8.q + 32 * i), block_steps[g], args.q8.scale[i]));
      }
    }
  }
  float32x4_t row_scales[kGroups];
  const uint64_t rows = panel_scales(w, panel, row_scales);
  for (uint64_t t = begin; t < end; ++t) {
    float* y = acc[t - begin];
    for (unsigned g = 0; g < kGroups; ++g) vst1q_f32(y + 4 * g, vmulq_f32(vld1q_f32(y + 4 * g), row_scales[g]));
    __builtin_memcpy(args.y + t * args.y_stride + panel * kTrellisPanelRows, y, rows * sizeof *y);
  }
}

template <unsigned kBits>
inline void matmul(const MatmulArgs& args) {
  const TrellisView& w = *static_cast<const TrellisView*>(args.weights);
  const Decoder<kBits> decoder(w);
  const uint8x16_t steps = vld1q_u8(w.steps);
  const uint64_t last = (args.row_end + kTrellisPanelRows - 1) / kTrellisPanelRows;
  for (uint64_t begin = 0; begin < args.n_tokens; begin += kTokensAtOnce) {
    const uint64_t end = begin + kTokensAtOnce < args.n_tokens ? begin + kTokensAtOnce : args.n_tokens;
    for (uint64_t panel = args.row_begin / kTrellisPanelRows; panel < last; ++panel) {
      if (args.n_tokens == 1) {
        one_token<kBits>(args, w, decoder, steps, panel);
      } else {
        many_tokens<kBits>(args, w, decoder, steps, panel, begin, end);
      }
    }
  }
  add_residual(w.residual, args);
}

template <unsigned kBits>
inline void unpack(const UnpackArgs& args) {
  const TrellisView& w = *static_cast<const TrellisView*>(args.weights);
  const Decoder<kBits> decoder(w);
  const uint8x16_t steps = vld1q_u8(w.steps);
  float32x4_t row_scales[kGroups];
  panel_scales(w, args.panel, row_scales);
  for (uint64_t col = args.col_begin; col < args.col_end; col += kTrellisBlockCols) {
    const uint64_t tile = args.panel * w.blocks + col / kTrellisBlockCols;
    const uint64_t n = args.col_end - col < kTrellisBlockCols ? args.col_end - col : kTrellisBlockCols;
    float32x4_t block_steps[kGroups];
    tile_steps(w.block_scales + tile * kTrellisScaleBytes, steps, block_steps);
    for (unsigned g = 0; g < kGroups; ++g) {
      const float32x4_t scale = vmulq_f32(block_steps[g], row_scales[g]);
      int8x16_t levels[kSlots];
      decoder.tile(w.codes + tile * kBits * 16 + 4 * g, levels);
      float* out = args.out + (col - args.col_begin) * 16 + 4 * g;
      for (uint64_t c = 0; c < n; ++c) {
        // Byte c % 4 of each lane, sign extended.
        const int32x4_t up =
            vshlq_s32(vreinterpretq_s32_s8(levels[c / 4]), vdupq_n_s32(24 - 8 * static_cast<int>(c % 4)));
        vst1q_f32(out + 16 * c, vmulq_f32(vcvtq_f32_s32(vshrq_n_s32(up, 24)), scale));
      }
    }
  }
  add_residual(w.residual, args);
}

}  // namespace

void matmul_trellis2_q8__neondot(const MatmulArgs& args) noexcept { matmul<2>(args); }
void matmul_trellis3_q8__neondot(const MatmulArgs& args) noexcept { matmul<3>(args); }
void matmul_trellis4_q8__neondot(const MatmulArgs& args) noexcept { matmul<4>(args); }
void unpack_trellis2__neondot(const UnpackArgs& args) noexcept { unpack<2>(args); }
void unpack_trellis3__neondot(const UnpackArgs& args) noexcept { unpack<3>(args); }
void unpack_trellis4__neondot(const UnpackArgs& args) noexcept { unpack<4>(args); }

}  // namespace upg::kernels
