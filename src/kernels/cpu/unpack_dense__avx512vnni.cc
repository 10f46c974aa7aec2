// Rows of bfloat16 or int8 to panels of 16: sixteen loads and a 16 x 16 transposition.
#include <immintrin.h>

#include "codec/layout/dense.h"
#include "codec/layout/int8.h"
#include "kernels/args.h"
#include "kernels/cpu/vec_avx512-inl.h"
//
#include "kernels/cpu/element-inl.h"

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

// Rows of `data` [rows, cols]; `scaled(row, values)` is what becomes of a row's values.
template <typename Element, typename Scaled>
inline void unpack(const unsigned char* data, uint64_t all_rows, uint64_t cols, const UnpackArgs& args, Scaled scaled) {
  const uint64_t row = args.panel * 16;
  const uint64_t rows = all_rows - row < 16 ? all_rows - row : 16;
  for (uint64_t col = args.col_begin; col < args.col_end; col += 16) {
    const uint64_t n = args.col_end - col < 16 ? args.col_end - col : 16;
    __m512i tile[16];
    for (uint64_t r = 0; r < 16; ++r) {
      const V values =
          r < rows ? scaled(row + r, Element::get(data + ((row + r) * cols + col) * Element::kBytes, n)) : zero();
      tile[r] = _mm512_castps_si512(values);
    }
    transpose(tile);
    for (uint64_t c = 0; c < n; ++c) _mm512_storeu_si512(args.out + (col - args.col_begin + c) * 16, tile[c]);
  }
}

}  // namespace

void unpack_bf16__avx512vnni(const UnpackArgs& args) noexcept {
  const DenseView& w = *static_cast<const DenseView*>(args.weights);
  unpack<Bf16Element>(w.data, w.rows, w.cols, args, [](uint64_t, V values) { return values; });
}

void unpack_int8__avx512vnni(const UnpackArgs& args) noexcept {
  const Int8View& w = *static_cast<const Int8View*>(args.weights);
  unpack<Int8Element>(reinterpret_cast<const unsigned char*>(w.values), w.rows, w.cols, args,
                      [&w](uint64_t row, V values) { return mul(set1(w.scales[row]), values); });
}

}  // namespace upg::kernels
