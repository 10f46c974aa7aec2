// What runs on the GPU for one token: a list of stages, plain structs that host and device share. The same list runs as
// one launch a stage, a layer or a token (pdvm.h).
#pragma once

#include <stdint.h>

#include "codec/layout/trellis.h"  // UPG_HOST_DEVICE

namespace upg::cuda {

constexpr unsigned kWarps = 16;  // of a block; one block on each multiprocessor
constexpr unsigned kThreads = 32 * kWarps;
constexpr unsigned kStepBlocks = 8;  // of 32 columns: what a warp multiplies at a time, for 16 rows
constexpr unsigned kHeadGroup = 4;   // query heads that share one pass over keys and values
constexpr unsigned kMaxHeadDim = 128;
constexpr unsigned kMostAttendSplits = 160;         // blocks that share a group's attention
constexpr unsigned kAttendShares = kWarps / 2 + 1;  // in shared memory together, of warps and of the new position
/// Floats of shared memory for attention (attend.cuh): the new key and value; the queries as the tensor cores take
/// them, high and low halves of each and twice over; shares; the rotation's angles.
constexpr unsigned kAttendFloats =
    2 * kMaxHeadDim + 2 * kHeadGroup * kMaxHeadDim + kAttendShares * kHeadGroup * (kMaxHeadDim + 2) + kMaxHeadDim;

/// Trellis weights on the device. The file's tiles are put in the order in which a warp reads them, so that a step is
/// one copy and its loads from shared memory meet no bank twice.
///   data [panels][steps][step_bytes], a step being 8 blocks of 32 columns for 16 rows:
///     codes  U32 [bits][32 lanes][4]: lane 4 g + t has rows 4 (g & 3) to 4 (g & 3) + 3 of block 2 t + (g >> 2);
///            of 3 bits, in words of another order (trellis.cuh)
///     scales U16 [32 lanes]: the block scales of the same, a nibble a row
/// Blocks past the last have codes and scales 0. Of two matrices one below the other that are `paired`, a panel has
/// eight rows of the upper, then the same of the lower.
struct TrellisMatrix {
  const uint8_t* data;
  const float* row_scales;  // [16 panels], times 2^-15; 0 past the last row
  uint32_t rows, cols, panels, blocks, steps, bits;
  uint32_t table[2][4];  // T[s][h], a byte each
  uint32_t extra[2];     // of 3 bits: T[0] - T[1]
  uint32_t paired;
  uint32_t differences;  // of 3 and 4 bits: whether levels can be sums, which asks for T[0] - T[1] of 0 to 127
  uint32_t sums[4][2];   // then, the entries that Sums3 or Sums4 (trellis.cuh) makes them up of
  float block_steps[16];
  // Sparse weights on top: MdCSR of the same shape, or values == nullptr.
  const int8_t* residual_values;
  const uint8_t* residual_deltas;
  const uint32_t* residual_row_pointers;
  const float* residual_scales;
};
/// Row of the file that is this one of `rows` that are paired.
UPG_HOST_DEVICE constexpr uint32_t unpaired_row(uint32_t row, uint32_t rows) {
  return row / 16 * 8 + row % 8 + (row % 16 < 8 ? 0 : rows / 2);
}
UPG_HOST_DEVICE constexpr unsigned step_bytes(unsigned bits) { return bits * 512 + 64; }
/// Neighbours of a panel that are copied together, as a unit: two, where a slot of a ring has room for them.
UPG_HOST_DEVICE constexpr unsigned unit_steps(unsigned slot_bytes, unsigned bits) {
  return 2 * step_bytes(bits) <= slot_bytes ? 2 : 1;
}

/// Things in parts that differ by one at most, the larger ones first.
struct Cut {
  uint32_t each, larger;  // what every part has; how many parts have one more

  UPG_HOST_DEVICE uint32_t begin(uint32_t part) const { return part * each + (part < larger ? part : larger); }
};

constexpr unsigned kMostSlices = 2;  // of a product for one token
/// How a product is dealt out: its steps, which are columns, to slices, and each slice's panels to its blocks.
struct Deal {
  uint32_t slices, blocks_of_slice;
  Cut steps, panels;
};

/// a / n without a division, by inverse_of(n).
struct Quotient {
  uint32_t whole, rest;
};
UPG_HOST_DEVICE constexpr uint32_t inverse_of(uint32_t n) { return n == 0 ? 0 : UINT32_MAX / n; }
UPG_HOST_DEVICE constexpr Quotient divide(uint32_t a, uint32_t n, uint32_t inverse) {
  // At most one too few.
  const auto whole = static_cast<uint32_t>((static_cast<uint64_t>(a) * inverse) >> 32);
  const uint32_t rest = a - whole * n;
  return rest < n ? Quotient{whole, rest} : Quotient{whole + 1, rest - n};
}

enum class Op : uint32_t { kEmbed, kProduct, kAttend, kSelect };

/// Where a product's input comes from.
enum class Input : uint32_t {
  kNorm,          // RMSNorm of the residual stream, to which the parts of the product before are added first
  kSwiglu,        // silu(gate) * up, both in one vector; of one token the gates are activated already (Stage::gates)
  kPairedSwiglu,  // the same of a matrix that is paired; of one token the block that has the pair multiplies it
  kPlain,
};

/// A vector that a product left in parts, one for each slice of its columns; the value is their sum in order. Words
/// have tags (tagged.cuh).
struct Parts {
  const float* data;  // [count][stride]
  uint32_t count, stride;
};

struct Best {
  float logit;
  int32_t token;
};

struct Stage {
  Op op;
  Input input;
  TrellisMatrix w;                // kProduct, kEmbed
  Deal deal;                      // kProduct
  uint32_t inverse[kMostSlices];  // inverse_of() each slice's steps
  uint32_t in_layer, out_layer;   // whose words `in` and `out` are, counted from the token's first
  Parts in;
  uint32_t same_input;  // kProduct: the input of the stage before, which is prepared already
  const float* stream;  // kNorm: the residual stream before `in` is added [cols], as an earlier launch left it
  float* next_stream;   // kNorm: and after; kEmbed: the row that was looked up
  const float* norm;    // kNorm [cols]
  float one_over_cols;  // kNorm
  float epsilon;        // kNorm, kAttend with norms
  float* out;           // kProduct: [splits][16 panels]; kAttend: [heads * head_dim]
  uint32_t gates;       // kProduct: rows whose results are activated, by silu(), before they are left; of a paired
                        // matrix half of them, and what is left is their products with the others [8 panels]
  Best* best;           // kProduct of the head, kSelect: the largest logit of each block
  // kAttend; the product before it has what says where keys are, too, and brings them nearer
  const float* bias;                   // of `in`, or nullptr
  const float *query_norm, *key_norm;  // RMSNorm of each head [head_dim], or nullptr
  uint32_t heads, kv_heads, head_dim, rotary_dim, window, capacity;
  const float* angles;               // [max_context][rotary_dim]: cosines, then sines
  void *keys, *values;               // of this layer: [kv_heads][capacity][head_dim], f16 or int8
  float *key_scales, *value_scales;  // int8: [kv_heads][capacity]
  uint32_t int8_cache;
  float* partial;     // [groups of heads][splits][kHeadGroup][head_dim + 2]
  uint32_t* tickets;  // [heads], 0 between launches
};

/// What a warp must know of a product to read its weights ahead of the stage.
struct Reading {
  const uint8_t* data;
  Deal deal;
  uint32_t steps, bits;  // of a panel; of a weight
};

/// How a token's attention is dealt out to blocks.
struct AttendShape {
  uint32_t few;                   // a query head a block; else groups of up to kHeadGroup share one pass
  uint32_t group, chunks, units;  // query heads of a kv head, groups among them, groups in all
  uint32_t first, each, splits;   // position, positions of a block, blocks of a unit
};

/// What changes from token to token.
struct State {
  int32_t token;
  uint32_t position;       // of the token
  uint32_t layers_before;  // that have been run on this device, modulo 2^32
  AttendShape attend;
  uint32_t error;          // a block waited too long for the others
  uint32_t arrived, left;  // blocks at the barriers of this launch; 0 between launches
};

}  // namespace upg::cuda
