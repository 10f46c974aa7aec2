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

// The decoders below give the 32 levels of one row's block from its kBits words, four to a register: levels[2 p + half]
// has columns 8 p + {0, 4, 1, 5} (half 0) or 8 p + {2, 6, 3, 7} (half 1), from its lowest byte on. `flip` is 0, or
// kOffset for levels + 128: then bytes() gives them all in one register, whatever decoder it is.
constexpr uint32_t kOffset = 0x80808080u;

// Entries of both rows of the table, and a choice between them.
template <unsigned kBitsOf>
struct Lookups {
  static constexpr unsigned kBits = kBitsOf;
  static constexpr bool kSums = false;
  uint32_t even[4], odd[4];  // T[0], T[1]

  __device__ Lookups(const TrellisMatrix& w, uint32_t, uint32_t flip) {
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
      even[i] = w.table[0][i] ^ flip;
      odd[i] = w.table[1][i] ^ flip;
    }
  }

  __device__ __forceinline__ void plane(uint32_t word, uint32_t u1, uint32_t u2, uint32_t u3, uint32_t* out) const {
    const uint32_t codes = word ^ ((u1 ^ u3) & kLowBits);
    if constexpr (kBits == 2) {
      // Both rows are eight bytes: s is the selector's third bit.
      const uint32_t selectors = (codes & 0x33333333u) + (u2 & kLowBits) * 4;
      out[0] = lookup(even[0], odd[0], selectors);
      out[1] = lookup(even[0], odd[0], selectors >> 16);
    } else {
      const uint32_t selectors = codes & 0x77777777u, rows = select_rows(u2);
      const uint32_t halves = ((codes >> 1) & 0x44444444u) | 0x32103210u;
#pragma unroll
      for (unsigned half = 0; half < 2; ++half) {
        const unsigned shift = 16 * half;
        out[half] = lookup(row_of(even, selectors >> shift, halves >> shift),
                           row_of(odd, selectors >> shift, halves >> shift), rows >> shift);
      }
    }
  }
  static __device__ __forceinline__ uint32_t row_of(const uint32_t (&table)[4], uint32_t selectors, uint32_t halves) {
    const uint32_t low = lookup(table[0], table[1], selectors);
    return kBits == 3 ? low : lookup(low, lookup(table[2], table[3], selectors), halves);
  }
  __device__ __forceinline__ void row(const uint32_t (&w)[kBits], uint32_t (&levels)[8]) const {
    uint32_t a = w[0], b, c, d;
    if constexpr (kBits == 2) {
      b = w[0] >> 2, c = w[1], d = w[1] >> 2;
    } else if constexpr (kBits == 3) {
      b = w[1], c = w[2];
      d = ((a >> 3) & 0x11111111u) | ((b >> 2) & 0x22222222u) | ((c >> 1) & 0x44444444u);
    } else {
      b = w[1], c = w[2], d = w[3];
    }
    const uint32_t tb = turned(b), tc = turned(c), td = turned(d);
    plane(a, td, tc, tb, levels);
    plane(b, a, td, tc, levels + 2);
    plane(c, b, a, td, levels + 4);
    plane(d, c, b, a, levels + 6);
  }
  __device__ __forceinline__ void bytes(const uint32_t (&w)[kBits], uint32_t (&levels)[8]) const { row(w, levels); }
};

// With 3 bits levels are a sum, levels[i] + more[i], which dot products take with each of the two: of two lookups and a
// choice between them, the choice goes, as the second lookup gives 0 by itself where it does not count. For that
// T[0] - T[1] must be 0 to 127 everywhere, which `differences` of a matrix says.
//
// On Hopper a scheduler starts logic, shifts and lookups every other cycle and dot products and multiplications every
// other cycle, on two different units; additions of halves go to a third. So the work is dealt out among them: what can
// be a multiplication is one, by factors that the compiler must not know, or it would turn them into shifts.
struct Sums3 {
  static constexpr unsigned kBits = 3;
  static constexpr bool kSums = true;
  uint32_t base[2], extra[2];  // T[1]; T[0] - T[1]
  uint32_t eight, minus_one;

  /// `one` is 1.
  __device__ Sums3(const TrellisMatrix& w, uint32_t one, uint32_t flip) {
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
      base[i] = w.table[1][i] ^ flip;
      extra[i] = w.extra[i];
    }
    eight = 8 * one;
    minus_one = 0 - one;
  }

  static __device__ __forceinline__ uint32_t multiply_add(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t sum;
    asm("mad.lo.u32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
  }
  // The lowest bit of each nibble, in a register of its own: or the compiler does the same again for each use.
  static __device__ __forceinline__ uint32_t low_bits(uint32_t x) {
    uint32_t low;
    asm("and.b32 %0, %1, 0x11111111;" : "=r"(low) : "r"(x));
    asm("" : "+r"(low));
    return low;
  }
  // x >> 16, whatever comes in the upper half of the result. With all nibbles of x below 8, its halves are finite as
  // half-precision numbers, and -0 added to them changes nothing.
  static __device__ __forceinline__ uint32_t upper_half(uint32_t x) {
    uint32_t both;
    asm("{\n"
        ".reg .b16 low, high;\n"
        ".reg .b32 twice;\n"
        "mov.b32 {low, high}, %1;\n"
        "mov.b32 twice, {high, high};\n"
        "add.f16x2 %0, twice, %2;\n"
        "}"
        : "=r"(both)
        : "r"(x), "r"(0x80008000u));
    return both;
  }
  // (x >> 16) * 8 + add.
  static __device__ __forceinline__ uint32_t upper_half_eightfold(uint32_t x, uint32_t add) {
    uint32_t sum;
    asm("dp2a.lo.u32.u32 %0, %1, %2, %3;" : "=r"(sum) : "r"(x), "r"(0x0800u), "r"(add));
    return sum;
  }

  // u2 has lowest bits of nibbles only. A selector's top bit gives the sign of its byte, eight times: 0.
  __device__ __forceinline__ void plane(uint32_t codes, uint32_t u2, uint32_t* levels, uint32_t* more) const {
    const uint32_t upper = upper_half(codes);
    levels[0] = lookup(base[0], base[1], codes);
    levels[1] = lookup(base[0], base[1], upper);
    more[0] = lookup(extra[0], extra[1], multiply_add(u2, eight, codes));
    more[1] = lookup(extra[0], extra[1], upper_half_eightfold(u2, upper));
  }
  __device__ __forceinline__ void row(const uint32_t (&w)[3], uint32_t (&levels)[8], uint32_t (&more)[8]) const {
    const uint32_t a8 = w[0] & 0x88888888u, b8 = w[1] & 0x88888888u, c8 = w[2] & 0x88888888u;
    const uint32_t a = multiply_add(a8, minus_one, w[0]), b = multiply_add(b8, minus_one, w[1]),
                   c = multiply_add(c8, minus_one, w[2]), d = (a8 >> 3) + ((b8 >> 2) + (c8 >> 1));
    const uint32_t la = low_bits(a), lb = low_bits(b), lc = low_bits(c), ld = low_bits(d);
    const uint32_t tb = turned(lb), tc = turned(lc), td = turned(ld);
    plane(a ^ td ^ tb, tc, levels, more);
    plane(b ^ la ^ tc, td, levels + 2, more + 2);
    plane(c ^ lb ^ td, la, levels + 4, more + 4);
    plane(d ^ lc ^ la, lb, levels + 6, more + 6);
  }
  __device__ __forceinline__ void bytes(const uint32_t (&w)[3], uint32_t (&levels)[8]) const {
    uint32_t more[8];
    row(w, levels, more);
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) levels[i] += more[i];
  }
};

/// A decoder's type as a value.
template <typename Decoder>
struct DecoderType {
  using type = Decoder;
};
/// Calls f with the DecoderType that a matrix needs.
#pragma nv_exec_check_disable  // f is of the side that calls
template <typename F>
UPG_HOST_DEVICE auto with_decoder(uint32_t bits, uint32_t differences, F f) {
  if (bits == 3 && differences) return f(DecoderType<Sums3>());
  if (bits == 3) return f(DecoderType<Lookups<3>>());
  if (bits == 2) return f(DecoderType<Lookups<2>>());
  return f(DecoderType<Lookups<4>>());
}
#pragma nv_exec_check_disable
template <typename F>
UPG_HOST_DEVICE auto with_decoder(const TrellisMatrix& w, F f) {
  return with_decoder(w.bits, w.differences, f);
}

// Where the activation of column c of a block lies among its 32 bytes, so that a word holds what a word of levels
// multiplies with.
__device__ __forceinline__ unsigned place_of_column(unsigned c) {
  return (c & 24) + ((c & 2) << 1) + ((c & 1) << 1) + ((c >> 2) & 1);
}

}  // namespace upg::cuda
