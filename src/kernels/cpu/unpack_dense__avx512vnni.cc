// Rows of bfloat16 to panels of 16: sixteen loads and a 16 x 16 transposition.
#include <immintrin.h>

#include "codec/layout/dense.h"
#include "kernels/args.h"

namespace upg::kernels {
namespace {

// rows[r] lane c  ->  rows[c] lane r
inline void transpose(__m512i* rows) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    rows[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    rows[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    rows[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    rows[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  // rows[4 i + j] now holds columns j, j + 4, j + 8, j + 12 of rows 4 i .. 4 i + 3, a 128-bit lane each.
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0x88),
                  b = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(rows[j], rows[4 + j], 0xdd),
                  d = _mm512_shuffle_i32x4(rows[8 + j], rows[12 + j], 0xdd);
    t[j] = _mm512_shuffle_i32x4(a, b, 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(a, b, 0xdd);
    t[4 + j] = _mm512_shuffle_i32x4(c, d, 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(c, d, 0xdd);
  }
  for (int i = 0; i < 16; ++i) rows[i] = t[i];
}

}  // namespace

void unpack_bf16__avx512vnni(const UnpackArgs& args) noexcept {
  const DenseView& w = *static_cast<const DenseView*>(args.weights);
  const uint64_t row = args.panel * 16;
  const uint64_t rows = w.rows - row < 16 ? w.rows - row : 16;
  for (uint64_t col = args.col_begin; col < args.col_end; col += 16) {
    const uint64_t n = args.col_end - col < 16 ? args.col_end - col : 16;
    const auto columns = static_cast<__mmask16>((1u << n) - 1u);
    __m512i tile[16];
    for (uint64_t r = 0; r < 16; ++r) {
      const __m256i bits = r < rows ? _mm256_maskz_loadu_epi16(columns, w.data + ((row + r) * w.cols + col) * 2)
                                    : _mm256_setzero_si256();
      tile[r] = _mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
    }
    transpose(tile);
    for (uint64_t c = 0; c < n; ++c) _mm512_storeu_si512(args.out + (col - args.col_begin + c) * 16, tile[c]);
  }
}

}  // namespace upg::kernels
