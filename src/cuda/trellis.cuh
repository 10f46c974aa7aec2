// Trellis codes to int8 levels, four to a register. See codec/layout/trellis.h for the codes and program.h for where
// they lie on the device.
#pragma once

#include "cuda/program.h"

namespace upg::cuda {

// Byte i of the result is the byte of {high, low} that nibble i of the selectors names, 0 to 7; with the nibble's top
// bit set, that byte's sign, eight times.
__device__ __forceinline__ uint32_t lookup(uint32_t low, uint32_t high, uint32_t selectors) {
  uint32_t bytes;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(low), "r"(high), "r"(selectors));
  return bytes;
}

__device__ __forceinline__ uint32_t turned(uint32_t x) { return __funnelshift_l(x, x, 4); }

constexpr uint32_t kLowBits = 0x11111111u;

// Picks byte i of `even` or of `odd`, as bit 0 of nibble i of u2 says.
__device__ __forceinline__ uint32_t select_rows(uint32_t u2) { return (u2 & kLowBits) * 4 + 0x32103210u; }

struct Table {
  uint32_t even[4], odd[4];    // T[0], T[1]; of 3 bits even alone is used, with `less`
  uint32_t minus[2], less[2];  // -T[0]; T[0] - T[1], 0 to 127
  // Powers of two that the compiler must not know: so shifts are done by the multipliers, which have less to do here
  // than the units for logic.
  uint32_t two16, two29, two30, two31;
  __device__ __forceinline__ uint32_t upper(uint32_t x) const { return __umulhi(x, two16); }  // x >> 16
};

// The 32 levels of one row's block, from its kBits words, four to a register: levels[2 p + half] has columns
// 8 p + {0, 4, 1, 5} (half 0) or 8 p + {2, 6, 3, 7} (half 1), from its lowest byte on.
template <unsigned kBits>
struct Decoder;

// With 3 bits the negative levels are a sum, levels[i] + less[i], which dot products take with each of the two: of two
// lookups and a choice between them, the choice goes, as the second lookup gives 0 by itself where it does not count.
// For that T[0] must nowhere be below T[1]; a matrix of other tables has kDifferences = false and no signs changed.
template <bool kDifferences>
struct Decoder3 {
  static __device__ __forceinline__ void plane(const Table& t, uint32_t word, uint32_t u1, uint32_t u2, uint32_t u3,
                                               uint32_t* levels, uint32_t* less) {
    const uint32_t codes = (word & 0x77777777u) ^ ((u1 ^ u3) & kLowBits);
    const uint32_t codes1 = t.upper(codes);
    if constexpr (kDifferences) {
      levels[0] = lookup(t.minus[0], t.minus[1], codes);
      levels[1] = lookup(t.minus[0], t.minus[1], codes1);
      // A selector's top bit gives the sign of its byte, eight times: 0.
      const uint32_t gated = codes | (~(u2 * 8) & 0x88888888u);
      less[0] = lookup(t.less[0], t.less[1], gated);
      less[1] = lookup(t.less[0], t.less[1], t.upper(gated));
    } else {
      const uint32_t rows = select_rows(u2);
      levels[0] = lookup(lookup(t.even[0], t.even[1], codes), lookup(t.odd[0], t.odd[1], codes), rows);
      levels[1] = lookup(lookup(t.even[0], t.even[1], codes1), lookup(t.odd[0], t.odd[1], codes1), t.upper(rows));
    }
  }
  static __device__ __forceinline__ void row(const Table& t, const uint32_t* w, uint32_t* levels, uint32_t* less) {
    const uint32_t a = w[0], b = w[1], c = w[2];
    const uint32_t d = (__umulhi(a, t.two29) & 0x11111111u) | (__umulhi(b, t.two30) & 0x22222222u) |
                       (__umulhi(c, t.two31) & 0x44444444u);
    const uint32_t tb = turned(b), tc = turned(c), td = turned(d);
    plane(t, a, td, tc, tb, levels, less);
    plane(t, b, a, td, tc, levels + 2, less + 2);
    plane(t, c, b, a, td, levels + 4, less + 4);
    plane(t, d, c, b, a, levels + 6, less + 6);
  }
};

template <>
struct Decoder<3> : Decoder3<false> {
  static __device__ __forceinline__ void row(const Table& t, const uint32_t* w, uint32_t* levels) {
    Decoder3<false>::row(t, w, levels, nullptr);
  }
};

template <>
struct Decoder<2> {
  // Both rows of the table are eight entries: s is the selector's third bit.
  static __device__ __forceinline__ void plane(const Table& t, uint32_t codes, uint32_t u1, uint32_t u2, uint32_t u3,
                                               uint32_t* out) {
    const uint32_t selectors = ((codes & 0x33333333u) ^ ((u1 ^ u3) & kLowBits)) + (u2 & kLowBits) * 4;
    out[0] = lookup(t.even[0], t.odd[0], selectors);
    out[1] = lookup(t.even[0], t.odd[0], t.upper(selectors));
  }
  static __device__ __forceinline__ void row(const Table& t, const uint32_t* w, uint32_t* out) {
    const uint32_t a = w[0], b = w[0] >> 2, c = w[1], d = w[1] >> 2;
    const uint32_t tb = turned(w[0]) >> 2, tc = turned(w[1]), td = tc >> 2;
    plane(t, a, td, tc, tb, out);
    plane(t, b, a, td, tc, out + 2);
    plane(t, c, b, a, td, out + 4);
    plane(t, d, c, b, a, out + 6);
  }
};

template <>
struct Decoder<4> {
  static __device__ __forceinline__ uint32_t of_sixteen(const uint32_t* table, uint32_t selectors, uint32_t halves) {
    return lookup(lookup(table[0], table[1], selectors), lookup(table[2], table[3], selectors), halves);
  }
  static __device__ __forceinline__ void plane(const Table& t, uint32_t word, uint32_t u1, uint32_t u2, uint32_t u3,
                                               uint32_t* out) {
    const uint32_t codes = word ^ ((u1 ^ u3) & kLowBits);
    const uint32_t selectors = codes & 0x77777777u, halves = ((codes >> 1) & 0x44444444u) | 0x32103210u;
    const uint32_t rows = select_rows(u2);
    out[0] = lookup(of_sixteen(t.even, selectors, halves), of_sixteen(t.odd, selectors, halves), rows);
    const uint32_t selectors1 = t.upper(selectors), halves1 = t.upper(halves);
    out[1] = lookup(of_sixteen(t.even, selectors1, halves1), of_sixteen(t.odd, selectors1, halves1), t.upper(rows));
  }
  static __device__ __forceinline__ void row(const Table& t, const uint32_t* w, uint32_t* out) {
    const uint32_t a = w[0], b = w[1], c = w[2], d = w[3];
    const uint32_t tb = turned(b), tc = turned(c), td = turned(d);
    plane(t, a, td, tc, tb, out);
    plane(t, b, a, td, tc, out + 2);
    plane(t, c, b, a, td, out + 4);
    plane(t, d, c, b, a, out + 6);
  }
};

// Where the activation of column c of a block lies among its 32 bytes, so that a word holds what a word of levels
// multiplies with.
__device__ __forceinline__ unsigned place_of_column(unsigned c) {
  return (c & 24) + ((c & 2) << 1) + ((c & 1) << 1) + ((c >> 2) & 1);
}

}  // namespace upg::cuda
