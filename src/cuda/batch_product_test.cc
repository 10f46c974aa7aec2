// Every product of several tokens against its terms in double: one tile of tokens and more, panels and slices that do
// not come out even, on the units that any GPU has and on Hopper's own.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <span>

#include "cuda/batch.h"
#include "cuda/first_gpu.h"
#include "cuda/random_trellis.h"

namespace upg::cuda {
namespace {

struct Shape {
  uint32_t rows, cols;
};
constexpr Shape kShapes[] = {{1, 32}, {40, 264}, {333, 800}, {2100, 5120}, {64, 17920}};

// What quantising leaves of a block: the least power of two that is not below the largest / 127 is the step.
void quantize(std::span<float> block) {
  float largest = 0;
  for (float x : block) largest = std::max(largest, std::abs(x));
  if (largest == 0) return;
  const double step = std::exp2(std::ceil(std::log2(double{largest} / 127)));
  for (float& x : block) x = static_cast<float>(std::nearbyint(x / step) * step);
}

TEST(TokensTogether, PartsHaveEveryColumnOfAStepOnce) {
  std::vector<int> times(32 * kStepBlocks);
  for (uint32_t part = 0; part < 32; ++part)
    for (uint32_t word = 0; word < 4; ++word)
      for (uint32_t half = 0; half < 2; ++half) ++times.at(column_of_part(part) + 64 * word + 4 * half);
  EXPECT_EQ(times, std::vector<int>(times.size(), 1));
}

class BatchProduct : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no CUDA device was found";
    gpu_ = use_first_gpu(7, 5, "tests");
  }

  // W as numbers, by looking rows up.
  std::vector<float> weights(const TrellisMatrix& w) const {
    std::vector<TokenRow> rows(w.rows);
    for (uint32_t i = 0; i < w.rows; ++i) rows[i] = {static_cast<int32_t>(i), 0, 0};
    const auto device_rows = upload(rows.data(), rows.size(), "rows");
    const auto device = allocate_zeros<float>(uint64_t{w.rows} * w.cols, "weights");
    check(embed_tokens(w, device_rows.get(), w.rows, device.get(), {nullptr, false}), "looking up rows");
    return download(device.get(), uint64_t{w.rows} * w.cols);
  }

  static std::vector<float> download(const float* from, uint64_t n) {
    std::vector<float> to(n);
    check(cudaMemcpy(to.data(), from, n * sizeof(float), cudaMemcpyDeviceToHost), "reading");
    return to;
  }

  // W x[t], x in so many parts.
  std::vector<float> product(const TrellisMatrix& w, const std::vector<float>& x, uint32_t parts_of_x, uint32_t n,
                             bool wide) const {
    const auto multiprocessors = static_cast<uint32_t>(gpu_.multiProcessorCount);
    const uint64_t part_floats = gemm_part_floats(w, n, multiprocessors);
    const auto parts = allocate_zeros<float>(part_floats, "vectors");
    const auto scratch = allocate_zeros<float>(few_scratch_floats(multiprocessors), "vectors");
    const GemmResources resources{static_cast<uint32_t>(gpu_.sharedMemPerBlockOptin),
                                  wide,
                                  multiprocessors,
                                  parts.get(),
                                  part_floats,
                                  scratch.get()};
    const Queue queue{nullptr, gpu_.major >= 9};
    const uint32_t width = 32 * kStepBlocks * w.steps, together = tokens_together(w, n, resources);
    const auto halves = allocate_zeros<uint16_t>(uint64_t{(n + 255) / 256 * 256} * width, "vectors");
    const auto scales = allocate_zeros<float>(n, "vectors");
    const auto y = allocate_zeros<float>(uint64_t{n} * w.rows, "vectors");
    const auto x_there = upload(x.data(), x.size(), "vectors");
    const HalfTokens tokens{halves.get(), scales.get(), width, together};
    check(prepare_tokens(Input::kPlain, {x_there.get(), parts_of_x, uint64_t{n} * w.cols, w.cols}, nullptr, nullptr, 0,
                         w.cols, n, tokens, nullptr, queue),
          "preparing tokens");
    RowParts where{};
    check(multiply_tokens(w, tokens, n, y.get(), w.rows, resources, &where, queue), "multiplying");
    if (where.data != y.get()) check(add_parts(where, w.rows, n, y.get(), w.rows, false, queue), "adding parts");
    check(cudaDeviceSynchronize(), "multiplying");
    return download(y.get(), uint64_t{n} * w.rows);
  }

  cudaDeviceProp gpu_{};
};

TEST_F(BatchProduct, IsTheSumOfItsTermsForAnyNumberOfTokens) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (uint32_t bits : {2u, 3u, 4u}) {
    for (const Shape& shape : kShapes) {
      const RandomTrellis trellis(shape.rows, shape.cols, bits, 0.01f);
      const TrellisMatrix& w = trellis.matrix();
      const std::vector<float> dense = weights(w);
      for (uint32_t n : {1u, 3u, 8u, 13u, 32u, 64u, 65u, 300u}) {
        const uint32_t parts = n % 2 == 0 ? 1 : 9;
        std::vector<float> x(uint64_t{parts} * n * shape.cols), sums(uint64_t{n} * shape.cols);
        for (uint64_t i = 0; i < sums.size(); ++i)
          for (uint32_t part = 0; part < parts; ++part) {
            // Blocks of different sizes, and a token that is 0.
            const float size = n > 2 && i / shape.cols == 1 ? 0.0f : std::exp2(static_cast<float>(i / 32 % 12));
            sums[i] += x[part * sums.size() + i] = size * normal(random);
          }
        for (uint32_t t = 0; t < n; ++t)
          for (uint32_t c = 0; c < shape.cols; c += 32)
            quantize(std::span(sums).subspan(uint64_t{t} * shape.cols + c, std::min(32u, shape.cols - c)));
        std::map<std::string, std::vector<float>> ys;
        ys["warps"] = product(w, x, parts, n, false);
        if (has_warpgroups(gpu_)) ys["warpgroups"] = product(w, x, parts, n, true);
        for (uint32_t t = 0; t<n; t += n> 64 ? 37 : 1)
          for (uint32_t r = 0; r<shape.rows; r += shape.rows> 400 ? 13 : 1) {
            double sum = 0, magnitude = 0;
            for (uint32_t c = 0; c < shape.cols; ++c) {
              const double term = double{dense[uint64_t{r} * shape.cols + c]} * sums[uint64_t{t} * shape.cols + c];
              sum += term;
              magnitude += std::abs(term);
            }
            // Levels times steps have 11 bits; the rest are sums in float.
            const double bound = (0x1p-11 + (shape.cols + 16) * 0x1p-24) * magnitude + 1e-30;
            for (const auto& [units, y] : ys)
              ASSERT_NEAR(y[uint64_t{t} * shape.rows + r], sum, bound) << fmt::format(
                  "{} bits, {} x {}, token {} of {}, row {}, by {}", bits, shape.rows, shape.cols, t, n, r, units);
          }
      }
    }
  }
}

}  // namespace
}  // namespace upg::cuda
