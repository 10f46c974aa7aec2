// Rows of bfloat16 or int8 to panels of 16: eight rows of 16 columns and two 8 x 8 transpositions at a time.
#include <immintrin.h>

#include "codec/layout/dense.h"
#include "codec/layout/int8.h"
#include "kernels/args.h"
#include "kernels/cpu/vec_avx2-inl.h"
//
#include "kernels/cpu/element-inl.h"

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

// Rows of `data` [rows, cols]; `scaled(row, values)` is what becomes of a row's values.
template <typename Element, typename Scaled>
inline void unpack(const unsigned char* data, uint64_t all_rows, uint64_t cols, const UnpackArgs& args, Scaled scaled) {
  for (uint64_t half = 0; half < 2; ++half) {
    const uint64_t row = args.panel * 16 + 8 * half;
    const uint64_t rows = row >= all_rows ? 0 : all_rows - row;
    for (uint64_t col = args.col_begin; col < args.col_end; col += kV) {
      const uint64_t n = args.col_end - col < kV ? args.col_end - col : kV;
      __m256 tile[kV];  // 8 rows of columns 0 to 7, then of 8 to 15
      for (uint64_t r = 0; r < 8; ++r) {
        const unsigned char* p = data + ((row + r) * cols + col) * Element::kBytes;
        const V values = r >= rows ? zero() : scaled(row + r, n == kV ? Element::get(p) : Element::get(p, n));
        tile[r] = values.a;
        tile[8 + r] = values.b;
      }
      transpose(tile);
      transpose(tile + 8);
      for (uint64_t c = 0; c < n; ++c) _mm256_storeu_ps(args.out + (col - args.col_begin + c) * 16 + 8 * half, tile[c]);
    }
  }
}

}  // namespace

void unpack_bf16__avx2(const UnpackArgs& args) noexcept {
  const DenseView& w = *static_cast<const DenseView*>(args.weights);
  unpack<Bf16Element>(w.data, w.rows, w.cols, args, [](uint64_t, V values) { return values; });
}

void unpack_int8__avx2(const UnpackArgs& args) noexcept {
  const Int8View& w = *static_cast<const Int8View*>(args.weights);
  unpack<Int8Element>(reinterpret_cast<const unsigned char*>(w.values), w.rows, w.cols, args,
                      [&w](uint64_t row, V values) { return mul(set1(w.scales[row]), values); });
}

}  // namespace upg::kernels
