// What trellis_avx512-inl.h needs, with VBMI: vpermb takes six bits of an index and ignores the others, so a table that
// repeats needs no masks.
#pragma once

#include <immintrin.h>

namespace upg::kernels {
namespace {

class Table {
 public:
  Table() = default;
  explicit Table(__m512i entries) : entries_(entries) {}

  // Lookups by the low and by the high nibbles.
  void plane(__m512i index, __m512i* out) const {
    out[0] = _mm512_permutexvar_epi8(index, entries_);
    out[1] = _mm512_permutexvar_epi8(_mm512_srli_epi32(index, 4), entries_);
  }
  // The same from `odd` where bit 0 of the nibble in `row` is set: that bit becomes bit 4 of the index.
  static void plane_of_two(const Table& even, const Table& odd, __m512i index, __m512i row, __m512i* out) {
    const __m512i both = _mm512_mask_mov_epi32(even.entries_, 0xf0f0, odd.entries_);  // [even, odd, even, odd]
    out[0] = _mm512_permutexvar_epi8(with_row(index, _mm512_slli_epi32(row, 4)), both);
    out[1] = _mm512_permutexvar_epi8(with_row(_mm512_srli_epi32(index, 4), row), both);
  }

 private:
  static __m512i with_row(__m512i index, __m512i row) {  // bits 0 to 3 of index, bit 4 of row
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), index, row, 0xca);
  }
  __m512i entries_;  // [4][16]
};

inline __m512i step_indices(__m512i packed) {
  // Byte j from bit 8 j, to lanes j and j + 8, there from bit 8 j + 4.
  const __m512i bits = _mm512_set_epi64(60ll << 32 | 52, 44ll << 32 | 36, 28ll << 32 | 20, 12ll << 32 | 4,
                                        56ll << 32 | 48, 40ll << 32 | 32, 24ll << 32 | 16, 8ll << 32);
  return _mm512_multishift_epi64_epi8(bits, packed);
}

}  // namespace
}  // namespace upg::kernels
