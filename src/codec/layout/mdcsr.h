// MdCSR, delta-compressed sparse rows: what the stored tensors mean. docs/format.md is the long form.
#pragma once

#include <cstdint>

namespace upg {

// Entry k of row r, for k in [row_pointers[r], row_pointers[r+1]), is a signed byte and the distance from the previous
// entry's column; a row starts at column 0, so its first delta is its first column. Columns 0, 5, 12, 15, then 400:
//
//   values          |  81 | -127 |   3 |  44 | -128 |   9 |     I8
//   delta_indices   |   0 |    5 |   7 |   3 |  255 | 130 |     U8
//   column          |   0 |    5 |  12 |  15 | (270)| 400 |     running sum, not stored
//   prime_indices   | 417 | 9999 |   0 |  23 |    0 | 611 |     U16, optional
//
// An entry with value -128 is a bridge: it advances by its delta, always 255, and contributes nothing, whatever x is.
// A gap of up to 255 needs no bridge; a writer bridges while the gap is above 255: 256 is 255 + 1, 510 is 255 + 255
// (one bridge, then a value at delta 255), 511 is 255 + 255 + 1.
//
// Rules that open() checks, so that every reader may trust them:
//   - row_pointers starts with 0, never falls, ends with nnz;
//   - the running column is < cols after every entry, bridges included, so any column may be loaded from;
//   - no column twice in a row: delta 0 only for a row's first entry or right after a bridge (writers never need the
//     latter; a reader accepts it, as the bridge itself put nothing at that column);
//   - value -128 only with delta 255; prime index < 10000, also in a bridge (writers put 0 there);
//   - scales are finite and at most 2^121 - 2^97 (the largest float / 128) in magnitude, so every weight is finite.
// Value 0 and an empty row are fine; a writer gives an empty row the scale 0. A row may end with a bridge.
//
// Weight, each step in float32 and rounded once: scales[r] * v, where v = float(value), or with prime_indices
// v = float(value) + prime_levels[prime_index].
inline constexpr uint8_t kSkipDelta = 255;
inline constexpr int8_t kSkipValue = -128;
inline constexpr uint64_t kMdcsrMaxCols = 0x7fffffff;     // columns are signed 32-bit lanes in vector code
inline constexpr uint64_t kMdcsrMaxEntries = 0xffffffff;  // row_pointers are U32
inline constexpr float kMdcsrMaxScale = 0x1.fffffep+120f;

struct MdcsrView {
  uint64_t rows;
  uint64_t cols;
  uint64_t nnz;                   // entries, bridges included
  const int8_t* values;           // [nnz]
  const uint8_t* delta_indices;   // [nnz]
  const uint32_t* row_pointers;   // [rows + 1]
  const float* scales;            // [rows]
  const uint16_t* prime_indices;  // [nnz], or null
  const float* prime_levels;      // m(i) / 2 for i in [0, 10000); null where prime_indices is
};

}  // namespace upg
