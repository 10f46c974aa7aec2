// The MdCSR matrix-vector kernels against the reference in double, over odd sizes, densities, bridges and tails.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "codec/mdcsr.h"
#include "kernels/kernel.h"

#if UPG_X86_SIMD
namespace upg::kernels {

void gemv_mdcsr_f32__avx2(const GemvArgs& args) noexcept;
void gemv_mdcsr_manifold_f32__avx2(const GemvArgs& args) noexcept;
void gemv_mdcsr_f32__avx512vnni(const GemvArgs& args) noexcept;
void gemv_mdcsr_manifold_f32__avx512vnni(const GemvArgs& args) noexcept;

namespace {

struct Isa {
  const char* name;
  bool available;
  GemvFn plain;
  GemvFn manifold;
};

class MdcsrKernel : public ::testing::TestWithParam<int> {
 protected:
  static Isa isa() {
    if (GetParam() == 0)
      return {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), gemv_mdcsr_f32__avx2,
              gemv_mdcsr_manifold_f32__avx2};
    return {"avx512vnni",
            __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512vnni"),
            gemv_mdcsr_f32__avx512vnni, gemv_mdcsr_manifold_f32__avx512vnni};
  }
  void SetUp() override {
    if (!isa().available) GTEST_SKIP() << "this processor has no " << isa().name;
  }
};

EncodedMatrix random_matrix(const Codec& codec, uint64_t rows, uint64_t cols, double density, uint32_t seed) {
  const RowSource source = [seed](uint64_t row, std::span<float> out) {
    std::mt19937 random(seed * 7919 + static_cast<uint32_t>(row));
    std::normal_distribution<float> normal(0.0f, row % 5 == 3 ? 1e-3f : 1.0f);  // every fifth row nearly or quite empty
    for (float& weight : out) weight = normal(random);
  };
  return codec.encode(rows, cols, source, EncodeOptions{density, {}});
}

std::vector<float> random_vector(uint64_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(size);
  for (float& value : x) value = normal(random);
  return x;
}

void expect_close(const Matrix& matrix, GemvFn kernel, const std::vector<float>& x) {
  const MdcsrView& view = mdcsr_view(matrix);
  std::vector<double> expected(view.rows);
  mdcsr_spmv_ref(view, x.data(), expected.data());
  constexpr float kUntouched = 12345.0f;
  std::vector<float> y(view.rows, kUntouched);
  const uint64_t begin = view.rows > 16 ? 16 : 0;
  kernel({matrix.layout.get(), &matrix, x.data(), y.data(), begin, view.rows});
  std::vector<float> dense(view.cols);
  for (uint64_t r = 0; r < view.rows; ++r) {
    if (r < begin) {
      ASSERT_EQ(y[r], kUntouched);
      continue;
    }
    matrix.codec->decode_row(matrix, r, dense.data());
    double magnitude = 0;
    for (uint64_t c = 0; c < view.cols; ++c)
      if (dense[c] != 0) magnitude += std::abs(double{dense[c]} * double{x[c]});
    // Each lane adds up n / 8 products at worst, then a few steps of reduction and scaling.
    const double n = static_cast<double>(view.row_pointers[r + 1] - view.row_pointers[r]);
    ASSERT_NEAR(y[r], expected[r], magnitude * (n / 8 + 8) * 0x1p-24)
        << "row " << r << " of " << view.rows << " x " << view.cols;
  }
}

TEST_P(MdcsrKernel, AgreesWithTheReferenceAtOddSizesAndDensities) {
  uint32_t seed = 1;
  for (uint64_t rows : {1, 19})
    for (uint64_t cols : {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 100, 255, 256, 257, 700, 5120})
      for (double density : {0.0, 0.004, 0.03, 0.1, 0.5, 1.0}) {
        const std::vector<float> x = random_vector(cols, ++seed);
        const EncodedMatrix plain = random_matrix(kMdcsrCodec, rows, cols, density, seed);
        const EncodedMatrix manifold = random_matrix(kMdcsrManifoldCodec, rows, cols, density, seed);
        expect_close(open_encoded(plain), isa().plain, x);
        expect_close(open_encoded(manifold), isa().manifold, x);
        if (HasFatalFailure()) return;
      }
}

TEST_P(MdcsrKernel, BridgesContributeNothingEvenWhereXIsInfinite) {
  for (uint64_t entries = 2; entries < 40; ++entries) {
    const uint64_t cols = 256 * entries + 1;
    const RowSource source = [](uint64_t, std::span<float> out) {
      for (size_t c = 0; c < out.size(); ++c) out[c] = c % 256 == 0 ? 1.0f + static_cast<float>(c) : 0.0f;
    };
    const double density = static_cast<double>(entries + 1) / static_cast<double>(cols);
    for (const Codec* codec : {&kMdcsrCodec, &kMdcsrManifoldCodec}) {
      const EncodedMatrix encoded = codec->encode(1, cols, source, EncodeOptions{density, {}});
      std::vector<float> x(cols, std::numeric_limits<float>::infinity());
      for (size_t c = 0; c < cols; c += 256) x[c] = 0.5f;
      ASSERT_EQ(encoded.components[0].shape[0], 2 * entries + 1);  // a bridge before each entry but the first
      expect_close(open_encoded(encoded), codec == &kMdcsrCodec ? isa().plain : isa().manifold, x);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, MdcsrKernel, ::testing::Values(0, 1),
                         [](const auto& param) { return param.param == 0 ? "avx2" : "avx512vnni"; });

}  // namespace
}  // namespace upg::kernels
#endif
