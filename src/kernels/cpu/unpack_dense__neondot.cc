// Rows of bfloat16 or int8 to panels of 16, a row at a time.
#include "codec/layout/dense.h"
#include "codec/layout/int8.h"
#include "kernels/args.h"
#include "kernels/cpu/vec_neon-inl.h"
//
#include "kernels/cpu/element-inl.h"

namespace upg::kernels {
namespace {

// Rows of `data` [rows, cols]; `scaled(row, values)` is what becomes of a row's values.
template <typename Element, typename Scaled>
inline void unpack(const unsigned char* data, uint64_t all_rows, uint64_t cols, const UnpackArgs& args, Scaled scaled) {
  for (uint64_t r = 0; r < 16; ++r) {
    const uint64_t row = args.panel * 16 + r;
    for (uint64_t col = args.col_begin; col < args.col_end; col += kV) {
      const uint64_t n = args.col_end - col < kV ? args.col_end - col : kV;
      const unsigned char* p = data + (row * cols + col) * Element::kBytes;
      float values[kV];
      store(values, row >= all_rows ? zero() : scaled(row, n == kV ? Element::get(p) : Element::get(p, n)));
      for (uint64_t c = 0; c < n; ++c) args.out[(col - args.col_begin + c) * 16 + r] = values[c];
    }
  }
}

}  // namespace

void unpack_bf16__neondot(const UnpackArgs& args) noexcept {
  const DenseView& w = *static_cast<const DenseView*>(args.weights);
  unpack<Bf16Element>(w.data, w.rows, w.cols, args, [](uint64_t, V values) { return values; });
}

void unpack_int8__neondot(const UnpackArgs& args) noexcept {
  const Int8View& w = *static_cast<const Int8View*>(args.weights);
  unpack<Int8Element>(reinterpret_cast<const unsigned char*>(w.values), w.rows, w.cols, args,
                      [&w](uint64_t row, V values) { return mul(set1(w.scales[row]), values); });
}

}  // namespace upg::kernels
