// For fuzz targets: bytes handed out piece by piece, and every kernel of a codec that runs here against decode_row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "codec/codec.h"
#include "kernels/kernel.h"
#include "kernels/test_products.h"

#define REQUIRE(condition)                                                 \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      __builtin_trap();                                                    \
    }                                                                      \
  } while (0)

namespace upg::fuzz {

/// Zeros when the input is used up.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  size_t left() const { return size_; }
  std::vector<std::byte> take(size_t size) {
    std::vector<std::byte> out(size);
    const size_t had = std::min(size, size_);
    if (had != 0) std::memcpy(out.data(), data_, had);
    data_ += had;
    size_ -= had;
    return out;
  }
  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

/// Components in exact allocations, `shift` bytes off alignment, so that the sanitizer sees any overrun or misaligned
/// load. Must outlive the matrix opened from `views`.
struct Parts {
  Parts(const std::vector<EncodedMatrix::Component>& components, size_t shift) {
    for (const auto& component : components) {
      std::vector<std::byte>& bytes = storage.emplace_back(component.data.size() + shift);
      if (!component.data.empty()) std::memcpy(bytes.data() + shift, component.data.data(), component.data.size());
      views.push_back({component.suffix, component.dtype, component.shape, std::span(bytes).subspan(shift)});
    }
  }
  std::vector<std::vector<std::byte>> storage;
  std::vector<TensorView> views;
};

/// [rows, cols]
inline std::vector<float> decode(const Matrix& matrix) {
  std::vector<float> dense(matrix.rows * matrix.cols, NAN);
  for (uint64_t r = 0; r < matrix.rows; ++r) matrix.codec->decode_row(matrix, r, dense.data() + r * matrix.cols);
  return dense;
}

/// Panels come out with the bits of decode_row.
inline void check_unpack(const Matrix& m, const std::vector<float>& dense) {
  for (const auto& row : kernels::unpack_kernels()) {
    if (!kernels::variant_matches(row.variant, m.codec->id) || !kernels::isa_available(row.isa)) continue;
    for (uint64_t panel = 0; panel * 16 < m.rows; ++panel) {
      std::vector<float> out(m.cols * 16, NAN);
      row.run({m.layout.get(), &m, panel, 0, m.cols, out.data()});
      for (uint64_t c = 0; c < m.cols; ++c)
        for (uint64_t r = panel * 16; r < std::min(m.rows, panel * 16 + 16); ++r)
          REQUIRE(std::memcmp(&out[c * 16 + r % 16], &dense[r * m.cols + c], 4) == 0);
    }
  }
}

/// Products with x, quantised where the codec wants it, within the bound of src/kernels/conformance_test.cc. `dense` is
/// without the matrix's residual, which is apart and meets float activations; empty where there is none.
inline void check_products(const Matrix& m, const std::vector<float>& dense, const std::vector<float>& x,
                           const std::vector<float>& residual = {}) {
  const bool quantized = m.codec->activation == "q8";
  const uint64_t blocks = ceil_div(m.cols, 32);
  const kernels::Activations activations(x, 1, kernels::select(kernels::quantize_kernels(), "q8").run);
  std::vector<double> expected(m.rows), magnitude(m.rows), slack(m.rows);
  double x_magnitude = 0;
  for (float value : x) x_magnitude += std::abs(double{value});
  for (uint64_t r = 0; r < m.rows; ++r) {
    for (uint64_t c = 0; c < m.cols; ++c) {
      const double value = activations.value(quantized, 0, c);
      expected[r] += double{dense[r * m.cols + c]} * value;
      magnitude[r] += std::abs(double{dense[r * m.cols + c]} * value);
      if (residual.empty()) continue;
      const double more = double{residual[r * m.cols + c]};
      expected[r] += more * double{x[c]};
      magnitude[r] += std::abs(more * double{x[c]});
      slack[r] += std::abs(more * (value - double{x[c]}));
    }
  }
  const double n = static_cast<double>((quantized ? blocks : m.cols) + (residual.empty() ? 0 : m.cols)) + 8;
  for (const kernels::Product& row : kernels::products(*m.codec)) {
    std::vector<float> y(m.rows, NAN);
    row.run(m, activations, y.data(), m.rows, 0, m.rows);
    for (uint64_t r = 0; r < m.rows; ++r) {
      if (!(magnitude[r] < 0x1p100)) continue;  // partial sums may leave float's range
      // The reference decodes the residual into the weights: it meets quantised activations there.
      REQUIRE(std::abs(double{y[r]} - expected[r]) <=
              (row.isa == "ref" ? slack[r] : 0) +
                  row.bound * (n * 0x1p-24 * magnitude[r] + 0x1p-149 * (n + x_magnitude)));
    }
  }
}

}  // namespace upg::fuzz
