// Every kernel of the list against the codec's product in double: odd shapes, empty rows, bridges, prime indices.
#include "cuda/spmv.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "codec/mdcsr.h"
#include "cuda/first_gpu.h"
#include "cuda/spmv_device.h"

namespace upg::cuda {
namespace {

struct Case {
  uint64_t rows, cols;
  double density;
};
constexpr Case kCases[] = {{1, 1, 1},          {3, 7, 0.5},     {129, 33, 0.3},   {64, 1000, 0.01}, {200, 5120, 0.1},
                           {17, 20000, 0.002}, {500, 300, 0.0}, {33, 30000, 0.5}, {1000, 257, 1}};

TEST(Spmv, EveryKernelAgreesWithTheProductInDouble) {
  if (!has_gpu()) GTEST_SKIP() << "no CUDA device was found";
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  for (const Codec* codec : {&kMdcsrCodec, &kMdcsrManifoldCodec}) {
    for (const Case& c : kCases) {
      std::vector<float> dense(c.rows * c.cols);
      for (float& weight : dense) weight = normal(random);
      EncodeOptions options;
      options.density = c.density;
      const EncodedMatrix encoded = codec->encode(
          c.rows, c.cols,
          [&](uint64_t row, std::span<float> out) { std::copy_n(dense.data() + row * c.cols, c.cols, out.data()); },
          options);
      const Matrix matrix = open_encoded(encoded);
      const DeviceSparse device(mdcsr_view(matrix));
      mdcsr_to_dense(mdcsr_view(matrix), dense.data());
      for (uint32_t n : {1u, 3u, 9u}) {
        std::vector<float> x(n * c.cols), y(n * c.rows);
        for (float& value : x) value = normal(random);
        const auto device_x = upload(x.data(), x.size(), "x");
        for (const SpmvKernel& kernel : spmv_kernels()) {
          const auto device_y = allocate_device<float>(y.size(), "y");
          set_bytes(device_y.get(), 0xff, y.size() * sizeof(float), "y");  // NaN where nothing is written
          ASSERT_EQ(kernel.run(device.matrix(), device_x.get(), n, device_y.get(), nullptr), cudaSuccess);
          check(cudaMemcpy(y.data(), device_y.get(), y.size() * sizeof(float), cudaMemcpyDeviceToHost), "y");
          for (uint32_t t = 0; t < n; ++t)
            for (uint64_t r = 0; r < c.rows; ++r) {
              double sum = 0, magnitude = 0;
              for (uint64_t i = 0; i < c.cols; ++i) {
                const double product = double{dense[r * c.cols + i]} * x[t * c.cols + i];
                sum += product;
                magnitude += std::abs(product);
              }
              // Higham 3.1: n roundings of sums, and a few of each weight.
              ASSERT_NEAR(y[t * c.rows + r], sum, (static_cast<double>(c.cols) + 8) * 0x1p-24 * magnitude + 1e-30)
                  << fmt::format("{} {} {} x {}, density {}, vector {} of {}, row {}", kernel.name, codec->id, c.rows,
                                 c.cols, c.density, t, n, r);
            }
        }
      }
    }
  }
}

}  // namespace
}  // namespace upg::cuda
