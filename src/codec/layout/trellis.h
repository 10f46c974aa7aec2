// Byte layout of the manifold trellis, shared by the codec, CPU kernels and nvcc. Standard headers only.
//
// A matrix is cut into panels of 16 rows and blocks of 32 columns; one panel x block is a tile. Rows past the last and
// columns past the last are padding whose codes mean nothing. Each weight has a k-bit code h, k = 2, 3 or 4, and
//
//     weight = row_scale[row] * 2^-15 * steps[block_scale] * T[s][h ^ f]        (exact in float32)
//
// where s and f are one bit each, from the low bits u1, u2, u3 of the codes one, two and three places back in the
// block's chain: s = u2, f = u1 ^ u3. The chain is tail-biting: the first weight's predecessor is the last. (This is
// Ungerboeck's eight-state code, h0 = 13, h1 = 04 octal, without feedback.) T[0] is the stored table; T[1][h] =
// -T[0][2^k - 1 - h].
//
// codes, U32 [panels][blocks][k][16]: lane j of a tile's word w belongs to row 16 * panel + j. A word is 8 nibbles,
// n = 0 in bits 0-3. The block's 32 weights form 4 planes p of 8 nibbles; column in block and place in the chain are
//
//     column = 8 p + 4 (n & 1) + (n >> 1)        chain position = 4 n + p
//
// so that after one 16-entry byte shuffle of the low (or high) nibbles of a word, a lane's four bytes are the weights
// of four consecutive columns, which is what vpdpbusd, sdot and dp4a take. Where plane p finds its code:
//
//     k = 2, words A B:        A_n = p1 p1 p0 p0    B_n = p3 p3 p2 p2          (most significant bit first)
//     k = 3, words A B C:      A_n = d0 p0 p0 p0    B_n = d1 p1 p1 p1    C_n = d2 p2 p2 p2    plane 3 = d2 d1 d0
//     k = 4, words A B C D:    plane p is word p
//
// block_scales, U8 [panels][blocks][8]: byte j holds row j's index in its low nibble and row j + 8's in its high
// nibble. row_scales, BF16 [rows]. steps, U8 [16]. codebook, U16 [2^k]: prime indices of T[0], level = round(127 m(i)).
//
// Some weights may have more added to them: residual_values, residual_delta_indices, residual_row_pointers and
// residual_scales are an MdCSR matrix of the same shape (layout/mdcsr.h). A weight that has an entry there is the
// product above plus the entry's scale * value, one float32 addition.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define UPG_HOST_DEVICE __host__ __device__
#else
#define UPG_HOST_DEVICE
#endif

namespace upg {

struct MdcsrView;  // layout/mdcsr.h

constexpr unsigned kTrellisPanelRows = 16;
constexpr unsigned kTrellisBlockCols = 32;
constexpr unsigned kTrellisPlanes = 4;
constexpr unsigned kTrellisSteps = 16;
constexpr unsigned kTrellisScaleBytes = 8;  // of one tile

struct TrellisView {
  uint64_t rows;
  uint64_t cols;
  uint64_t panels;              // ceil(rows / 16)
  uint64_t blocks;              // ceil(cols / 32)
  unsigned bits;                // k
  const uint32_t* codes;        // [panels][blocks][k][16]
  const uint8_t* block_scales;  // [panels][blocks][8]
  const uint16_t* row_scales;   // bf16 [rows]
  uint8_t steps[16];
  int8_t table[2][16];        // T[s][h]; entries from 2^k on are 0
  const MdcsrView* residual;  // sparse weights to be added, of the same shape; null: none
};

/// The chain's memory: bit 0 is the low bit of the previous code, bit 1 of the one before it, bit 2 of the third.
constexpr unsigned kTrellisStates = 8;
UPG_HOST_DEVICE constexpr unsigned trellis_next_state(unsigned state, unsigned code) {
  return ((state << 1) | (code & 1)) & (kTrellisStates - 1);
}
/// s and f of a weight in this state: it is T[trellis_row(state)][code ^ trellis_flip(state)].
UPG_HOST_DEVICE constexpr unsigned trellis_row(unsigned state) { return (state >> 1) & 1; }
UPG_HOST_DEVICE constexpr unsigned trellis_flip(unsigned state) { return (state ^ (state >> 2)) & 1; }

/// Column within its block of nibble n in plane p.
UPG_HOST_DEVICE constexpr unsigned trellis_column(unsigned plane, unsigned nibble) {
  return 8 * plane + 4 * (nibble & 1) + (nibble >> 1);
}

/// The code at (plane, nibble), from the k words of one lane, `stride` apart.
UPG_HOST_DEVICE inline unsigned trellis_code(const uint32_t* words, unsigned stride, unsigned bits, unsigned plane,
                                             unsigned nibble) {
  const unsigned shift = 4 * nibble;
  if (bits == 2) return (words[(plane >> 1) * stride] >> (shift + 2 * (plane & 1))) & 3u;
  if (bits == 4) return (words[plane * stride] >> shift) & 15u;
  if (plane < 3) return (words[plane * stride] >> shift) & 7u;
  return ((words[0] >> (shift + 3)) & 1u) | (((words[stride] >> (shift + 3)) & 1u) << 1) |
         (((words[2 * stride] >> (shift + 3)) & 1u) << 2);
}

/// The state before the block's first weight: its chain bites its tail. Words as for trellis_code().
UPG_HOST_DEVICE inline unsigned trellis_first_state(const uint32_t* words, unsigned stride, unsigned bits) {
  unsigned state = 0;
  for (unsigned plane = 1; plane < kTrellisPlanes; ++plane)
    state = trellis_next_state(state, trellis_code(words, stride, bits, plane, 7));
  return state;
}

/// Index into steps of row `lane` of a tile.
UPG_HOST_DEVICE inline unsigned trellis_step_index(const uint8_t* tile_scales, unsigned lane) {
  return (tile_scales[lane & 7] >> (4 * (lane >> 3))) & 15u;
}

}  // namespace upg
