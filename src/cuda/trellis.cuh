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

constexpr uint32_t kLowBits = 0x11111111u, kTopBits = 0x88888888u;

// Picks byte i of `even` or of `odd`, as bit 0 of nibble i of u2 says.
__device__ __forceinline__ uint32_t select_rows(uint32_t u2) { return (u2 & kLowBits) * 4 + 0x32103210u; }

// The decoders below give the 32 levels of one row's block from its kBits words, four to a register: number 2 p + half
// has columns 8 p + {0, 4, 1, 5} (half 0) or 8 p + {2, 6, 3, 7} (half 1), from its lowest byte on. row() gives them to
// put(number, bytes), with some decoders as several registers of a number, whose sum they are; bytes() gives each in
// one register. `flip` is 0, or kOffset for levels + 128 from bytes().
constexpr uint32_t kOffset = 0x80808080u;

__device__ __forceinline__ uint32_t multiply_add(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t sum;
  asm("mad.lo.u32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  return sum;
}
// Bits of a where the mask has them, else of b: one operation, where the compiler finds two for two in a row.
__device__ __forceinline__ uint32_t choose(uint32_t mask, uint32_t a, uint32_t b) {
  uint32_t both;
  asm("lop3.b32 %0, %1, %2, %3, 0xca;" : "=r"(both) : "r"(mask), "r"(a), "r"(b));
  return both;
}

// With 3 bits the device's words are not the file's. As of each weight's code h only the lowest bit u matters to other
// weights, and s is a u of the same or the nibble before, a word's nibbles are selectors as lookups want them, with s
// on top of h ^ f, but for what plane 0 puts in the place of others' lowest bits. From the top, with v the lowest bit
// of h ^ f, ' for the nibble before and `a1` for bit 1 of plane 0's code:
//     word 0: u3' b2 b1 a1    word 1: u0 c2 c1 v2    word 2: u1 d2 d1 a2
__device__ __forceinline__ void to_device_words3(uint32_t* w) {
  const uint32_t a = w[0], b = w[1], c = w[2];
  const uint32_t u3_before = turned((a >> 3) & kLowBits);
  w[0] = (u3_before << 3) | (b & 0x66666666u) | ((a >> 1) & kLowBits);
  w[1] = ((a & kLowBits) << 3) | (c & 0x66666666u) | ((c ^ b ^ u3_before) & kLowBits);
  w[2] = ((b & kLowBits) << 3) | ((c >> 1) & 0x44444444u) | ((b >> 2) & 0x22222222u) | ((a >> 2) & kLowBits);
}

// The four planes' selectors: s, then h ^ f. `one` is 1.
//
// On Hopper a scheduler starts logic, shifts and lookups every other cycle and dot products and multiplications every
// other cycle, on two different units. So the work is dealt out among them: what can be a multiplication is one, by
// factors that the compiler must not know, or it would turn them into shifts. But `x >> 3` is a shift: the high half of
// a product takes four cycles.
__device__ __forceinline__ void selectors3(const uint32_t (&w)[3], uint32_t one, uint32_t (&planes)[4]) {
  // In the top bits of nibbles; the others mean nothing.
  uint32_t u2 = w[0] ^ w[2] ^ multiply_add(w[1], 8 * one, 0);
  asm("" : "+r"(u2));
  const uint32_t u2_before = turned(u2), u1_before = turned(w[2]), u3 = __funnelshift_r(w[0], w[0], 4);
  const uint32_t v0 = w[1] ^ w[0] ^ u1_before, v1 = w[2] ^ w[1] ^ u2_before, v3 = u3 ^ u2 ^ w[1];
  const uint32_t ends = choose(kLowBits, v0 >> 3, u2_before);
  const uint32_t middle = choose(0x22222222u, multiply_add(w[0], 2 * one, 0), multiply_add(w[2], 4 * one, 0));
  planes[0] = choose(0x66666666u, middle, ends);
  planes[1] = choose(kLowBits, v1 >> 3, w[0]);
  planes[2] = w[1];
  planes[3] = choose(kLowBits, v3 >> 3, w[2]);
}

// Entries of both rows of the table, and a choice between them.
template <unsigned kBitsOf>
struct Lookups {
  static constexpr unsigned kBits = kBitsOf;
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
      choose_rows(codes, select_rows(u2), out);
    }
  }
  // Of more than two bits.
  __device__ __forceinline__ void choose_rows(uint32_t codes, uint32_t rows, uint32_t* out) const {
    const uint32_t selectors = codes & 0x77777777u, halves = ((codes >> 1) & 0x44444444u) | 0x32103210u;
#pragma unroll
    for (unsigned half = 0; half < 2; ++half) {
      const unsigned shift = 16 * half;
      out[half] = lookup(row_of(even, selectors >> shift, halves >> shift),
                         row_of(odd, selectors >> shift, halves >> shift), rows >> shift);
    }
  }
  static __device__ __forceinline__ uint32_t row_of(const uint32_t (&table)[4], uint32_t selectors, uint32_t halves) {
    const uint32_t low = lookup(table[0], table[1], selectors);
    return kBits == 3 ? low : lookup(low, lookup(table[2], table[3], selectors), halves);
  }
  __device__ __forceinline__ void bytes(const uint32_t (&w)[kBits], uint32_t (&levels)[8]) const {
    if constexpr (kBits == 3) {
      uint32_t planes[4];
      selectors3(w, 1, planes);
#pragma unroll
      for (unsigned p = 0; p < 4; ++p) choose_rows(planes[p], select_rows(planes[p] >> 3), levels + 2 * p);
    } else {
      const bool two = kBits == 2;
      const uint32_t a = w[0], b = two ? w[0] >> 2 : w[1], c = two ? w[1] : w[kBits - 2];
      const uint32_t d = two ? w[1] >> 2 : w[kBits - 1];
      const uint32_t tb = turned(b), tc = turned(c), td = turned(d);
      plane(a, td, tc, tb, levels);
      plane(b, a, td, tc, levels + 2);
      plane(c, b, a, td, levels + 4);
      plane(d, c, b, a, levels + 6);
    }
  }
  template <typename Put>
  __device__ __forceinline__ void row(const uint32_t (&w)[kBits], Put put) const {
    uint32_t levels[8];
    bytes(w, levels);
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) put(i, levels[i]);
  }
};

// x >> 16.
__device__ __forceinline__ uint32_t upper(uint32_t x) {
  uint32_t half;
  asm("dp2a.lo.u32.u32 %0, %1, %2, %3;" : "=r"(half) : "r"(x), "r"(0x0100u), "r"(0u));
  return half;
}

// With 3 bits levels are a sum of two, which products take with each of them: of two lookups and a choice between them,
// the choice goes. With s on top of a selector and not s on top of the other, one of the lookups gives its entry and
// the other just the sign of its own, -1 or 0, which the entries make up for. T[0] - T[1] must be 0 to 127 everywhere,
// which `differences` of a matrix says.
struct Sums3 {
  static constexpr unsigned kBits = 3;
  uint32_t even[2], odd[2];    // entries that make up T[0], T[1]; those of T[1] from the last to the first
  uint32_t base[2], extra[2];  // T[1]; T[0] - T[1]
  uint32_t one, minus_one;

  /// `one_of` is 1.
  __device__ Sums3(const TrellisMatrix& w, uint32_t one_of, uint32_t flip) : one(one_of), minus_one(0 - one_of) {
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
      even[i] = w.sums[0][i];
      odd[i] = w.sums[1][i];
      base[i] = w.table[1][i] ^ flip;
      extra[i] = w.extra[i];
    }
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
  // ~x.
  __device__ __forceinline__ uint32_t inverted(uint32_t x) const { return multiply_add(x, minus_one, minus_one); }

  template <typename Put>
  __device__ __forceinline__ void row(const uint32_t (&w)[3], Put put) const {
    uint32_t planes[4];
    selectors3(w, one, planes);
#pragma unroll
    for (unsigned p = 0; p < 4; ++p) {
      const uint32_t high = upper(planes[p]);
      put(2 * p, lookup(even[0], even[1], planes[p]));
      put(2 * p, lookup(odd[0], odd[1], inverted(planes[p])));
      put(2 * p + 1, lookup(even[0], even[1], high));
      put(2 * p + 1, lookup(odd[0], odd[1], inverted(high)));
    }
  }
  // Bytes must not carry into each other: here the second lookup gives T[0] - T[1] or 0, the sign of that.
  __device__ __forceinline__ void bytes(const uint32_t (&w)[3], uint32_t (&levels)[8]) const {
    uint32_t planes[4];
    selectors3(w, one, planes);
#pragma unroll
    for (unsigned p = 0; p < 4; ++p) {
      const uint32_t codes = planes[p] & 0x77777777u;
      levels[2 * p] = lookup(base[0], base[1], codes) + lookup(extra[0], extra[1], planes[p]);
      levels[2 * p + 1] = lookup(base[0], base[1], upper_half(codes)) + lookup(extra[0], extra[1], upper(planes[p]));
    }
  }
};

// With 4 bits levels are a sum of four: T[1]'s entry, from two tables of eight of which the code's top bit takes one,
// and T[0] - T[1], where s is 0, from two others. As in Sums3 a lookup gives its entry or the sign of one. bytes() are
// those of Lookups<4>.
struct Sums4 {
  static constexpr unsigned kBits = 4;
  uint32_t low[2], high[2];              // make up T[1]
  uint32_t extra_low[2], extra_high[2];  // T[0] - T[1]; what is high goes from the last to the first
  uint32_t one, minus_one;

  /// `one_of` is 1.
  __device__ Sums4(const TrellisMatrix& w, uint32_t one_of, uint32_t) : one(one_of), minus_one(0 - one_of) {
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
      low[i] = w.sums[0][i];
      high[i] = w.sums[1][i];
      extra_low[i] = w.sums[2][i];
      extra_high[i] = w.sums[3][i];
    }
  }

  template <typename Put>
  __device__ __forceinline__ void row(const uint32_t (&w)[4], Put put) const {
    const uint32_t before[3] = {turned(w[1]), turned(w[2]), turned(w[3])};
    // u1, u2 and u3 are the lowest bits of the planes one, two and three before.
    const auto plane = [&](unsigned p, unsigned back) { return p >= back ? w[p - back] : before[p + 3 - back]; };
#pragma unroll
    for (unsigned p = 0; p < 4; ++p) {
      const uint32_t codes = w[p] ^ ((plane(p, 1) ^ plane(p, 3)) & kLowBits);
      const uint32_t s = multiply_add(plane(p, 2), 8 * one, 0), inverse = multiply_add(codes, minus_one, minus_one);
      const uint32_t of_low = codes | (s & kTopBits), of_high = inverse | (s & kTopBits);
      put(2 * p, lookup(low[0], low[1], codes));
      put(2 * p, lookup(high[0], high[1], inverse));
      put(2 * p, lookup(extra_low[0], extra_low[1], of_low));
      put(2 * p, lookup(extra_high[0], extra_high[1], of_high));
      put(2 * p + 1, lookup(low[0], low[1], upper(codes)));
      put(2 * p + 1, lookup(high[0], high[1], upper(inverse)));
      put(2 * p + 1, lookup(extra_low[0], extra_low[1], upper(of_low)));
      put(2 * p + 1, lookup(extra_high[0], extra_high[1], upper(of_high)));
    }
  }
};

/// A decoder's type as a value.
template <typename Decoder>
struct DecoderType {
  using type = Decoder;
};
/// Calls f with the DecoderType of which a matrix needs bytes().
#pragma nv_exec_check_disable  // f is of the side that calls
template <typename F>
UPG_HOST_DEVICE auto with_bytes(const TrellisMatrix& w, F f) {
  if (w.bits == 3 && w.differences) return f(DecoderType<Sums3>());
  if (w.bits == 3) return f(DecoderType<Lookups<3>>());
  if (w.bits == 2) return f(DecoderType<Lookups<2>>());
  return f(DecoderType<Lookups<4>>());
}
/// The same with that of which it needs row().
template <typename F>
__device__ auto with_rows(uint32_t bits, uint32_t differences, F f) {
  if (bits == 3 && differences) return f(DecoderType<Sums3>());
  if (bits == 4 && differences) return f(DecoderType<Sums4>());
  if (bits == 3) return f(DecoderType<Lookups<3>>());
  if (bits == 2) return f(DecoderType<Lookups<2>>());
  return f(DecoderType<Lookups<4>>());
}

// Where the activation of column c of a block lies among its 32 bytes, so that a word holds what a word of levels
// multiplies with.
__device__ __forceinline__ unsigned place_of_column(unsigned c) {
  return (c & 24) + ((c & 2) << 1) + ((c & 1) << 1) + ((c >> 2) & 1);
}

}  // namespace upg::cuda
