// For tests and fuzz targets: the rows of gemv and matmul that multiply with a codec's matrices, behind one call.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/checked.h"
#include "codec/codec.h"
#include "kernels/kernel.h"

namespace upg::kernels {

/// Tokens [n, cols] in both forms, in memory of exactly their size.
struct Activations {
  Activations(std::vector<float> values, uint64_t n_tokens, QuantizeFn quantize)
      : n(n_tokens),
        x(std::move(values)),
        cols(x.size() / n),
        q(ceil_div(cols, 32) * 32 * n),
        scale(q.size() / 32),
        offset(q.size() / 32) {
    for (uint64_t t = 0; t < n; ++t)
      quantize({x.data() + t * cols, cols, n, q.data() + 32 * t, scale.data() + t, offset.data() + t});
  }
  Q8Tokens q8() const { return {q.data(), scale.data(), offset.data()}; }
  double value(bool quantized, uint64_t t, uint64_t c) const {
    const uint64_t block = c / 32 * n + t;
    return quantized ? static_cast<double>(q[32 * block + c % 32]) * static_cast<double>(scale[block])
                     : static_cast<double>(x[t * cols + c]);
  }

  uint64_t n;
  std::vector<float> x;
  uint64_t cols;
  std::vector<int8_t> q;
  std::vector<float> scale;
  std::vector<int32_t> offset;
};

/// A kernel for y[t][r] = W x[t], rows [begin, end), `stride` floats from token to token.
struct Product {
  std::string name;
  std::string_view isa;
  double bound;
  std::function<void(const Matrix& w, const Activations& x, float* y, uint64_t stride, uint64_t begin, uint64_t end)>
      run;
};

/// Those that serve the codec and can run here, in list order.
inline std::vector<Product> products(const Codec& codec) {
  const std::string variant = std::string(codec.id) + "_" + std::string(codec.activation);
  std::vector<Product> rows;
  for (const auto& row : matmul_kernels())
    if (variant_matches(row.variant, variant) && isa_available(row.isa))
      rows.push_back({std::string(row.name), row.isa, row.bound,
                      [run = row.run](const Matrix& w, const Activations& x, float* y, uint64_t stride, uint64_t begin,
                                      uint64_t end) {
                        run({w.layout.get(), &w, x.x.data(), x.q8(), y, x.n, stride, begin, end});
                      }});
  for (const auto& row : gemv_kernels())
    if (variant_matches(row.variant, variant) && isa_available(row.isa))
      rows.push_back({std::string(row.name), row.isa, row.bound,
                      [run = row.run](const Matrix& w, const Activations& x, float* y, uint64_t stride, uint64_t begin,
                                      uint64_t end) {
                        for (uint64_t t = 0; t < x.n; ++t)
                          run({w.layout.get(), &w, x.x.data() + t * x.cols, y + t * stride, begin, end});
                      }});
  return rows;
}

}  // namespace upg::kernels
