// Rows of bfloat16 to panels of 16: eight loads and an 8 x 8 transposition at a time.
#include <immintrin.h>

#include "codec/layout/dense.h"
#include "kernels/args.h"

namespace upg::kernels {
namespace {

// rows[r] lane c  ->  rows[c] lane r
inline void transpose(__m256* rows) {
  __m256 t[8];
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    rows[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    rows[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    rows[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    rows[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2f128_ps(rows[i], rows[4 + i], 0x20);
    t[4 + i] = _mm256_permute2f128_ps(rows[i], rows[4 + i], 0x31);
  }
  for (int i = 0; i < 8; ++i) rows[i] = t[i];
}

}  // namespace

void unpack_bf16__avx2(const UnpackArgs& args) noexcept {
  const DenseView& w = *static_cast<const DenseView*>(args.weights);
  for (uint64_t half = 0; half < 2; ++half) {
    const uint64_t row = args.panel * 16 + 8 * half;
    const uint64_t rows = row >= w.rows ? 0 : w.rows - row;
    for (uint64_t col = args.col_begin; col < args.col_end; col += 8) {
      const uint64_t n = args.col_end - col < 8 ? args.col_end - col : 8;
      __m256 tile[8];
      for (uint64_t r = 0; r < 8; ++r) {
        alignas(16) uint16_t bits[8] = {};
        if (r < rows) __builtin_memcpy(bits, w.data + ((row + r) * w.cols + col) * 2, n * 2);
        const __m256i wide = _mm256_cvtepu16_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(bits)));
        tile[r] = _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
      }
      transpose(tile);
      for (uint64_t c = 0; c < n; ++c) _mm256_storeu_ps(args.out + (col - args.col_begin + c) * 16 + 8 * half, tile[c]);
    }
  }
}

}  // namespace upg::kernels
