// Byte layout of the manifold trellis, shared by the codec, CPU kernels and nvcc. Standard headers only.
//
// A matrix is cut into panels of 16 rows and blocks of 32 columns; one panel x block is a tile. Rows past the last and
// columns past the last are padding whose codes mean nothing. Each weight has a k-bit code h, k = 2, 3 or 4, and
//
//     weight = row_scale[row] * 2^-15 * steps[block_scale] * T[s][h]        (exact in float32)
//
// where s is the low bit of the previous code in the block's chain, tail-biting: the first weight's predecessor is the
// last. T[0] is the stored table; T[1][h] = -T[0][2^k - 1 - h].
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
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define UPG_HOST_DEVICE __host__ __device__
#else
#define UPG_HOST_DEVICE
#endif

namespace upg {

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
  int8_t table[2][16];  // T[s][h]; entries from 2^k on are 0
};

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

/// Index into steps of row `lane` of a tile.
UPG_HOST_DEVICE inline unsigned trellis_step_index(const uint8_t* tile_scales, unsigned lane) {
  return (tile_scales[lane & 7] >> (4 * (lane >> 3))) & 15u;
}

}  // namespace upg
