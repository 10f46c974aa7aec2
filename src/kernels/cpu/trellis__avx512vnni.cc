// AVX-512 without VBMI: pshufb looks at bit 7 too, so indices are cut down to their nibble.
#include <immintrin.h>

#include "kernels/cpu/mdcsr_avx512-inl.h"

namespace upg::kernels {
namespace {

class Table {
 public:
  Table() = default;
  explicit Table(__m512i entries) : entries_(entries) {}

  // Lookups by the low and by the high nibbles.
  void plane(__m512i index, __m512i* out) const {
    out[0] = _mm512_shuffle_epi8(entries_, nibbles(index));
    out[1] = _mm512_shuffle_epi8(entries_, nibbles(_mm512_srli_epi32(index, 4)));
  }
  // The same from `odd` where bit 0 of the nibble in `row` is set.
  static void plane_of_two(const Table& even, const Table& odd, __m512i index, __m512i row, __m512i* out) {
    const __m512i low = nibbles(index), high = nibbles(_mm512_srli_epi32(index, 4));
    const __mmask64 low_odd = _mm512_test_epi8_mask(row, _mm512_set1_epi8(0x01));
    const __mmask64 high_odd = _mm512_test_epi8_mask(row, _mm512_set1_epi8(0x10));
    out[0] = _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(even.entries_, low), low_odd, odd.entries_, low);
    out[1] = _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(even.entries_, high), high_odd, odd.entries_, high);
  }

 private:
  static __m512i nibbles(__m512i x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
  __m512i entries_;  // [4][16]
};

inline __m512i step_indices(__m512i packed) {
  // Byte j to lanes j and j + 8.
  const __m512i spread = _mm512_set_epi32(7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i shifts = _mm512_set_epi32(4, 4, 4, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0);
  return _mm512_srlv_epi32(_mm512_shuffle_epi8(packed, spread), shifts);
}

}  // namespace
}  // namespace upg::kernels

#include "kernels/cpu/trellis_avx512-inl.h"

UPG_TRELLIS_KERNELS(avx512vnni)
