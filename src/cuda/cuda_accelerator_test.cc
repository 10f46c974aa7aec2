// Compression on the GPU against compression on the CPU: products, statistics, factors, corrected weights, codes, and a
// whole model. Sums differ by rounding, so that codes may differ where two are nearly as good.
#include "cuda/cuda_accelerator.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "codec/dense.h"
#include "codec/feedback.h"
#include "codec/trellis.h"
#include "cuda/first_gpu.h"
#include "format/test_util.h"
#include "model/test_util.h"
#include "upg/compress.h"

namespace upg {
namespace {

const Codec* const kTrellisCodecs[] = {&kTrellis2Codec, &kTrellis3Codec, &kTrellis4Codec};

std::vector<float> normal(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> x(n);
  for (float& value : x) value = distribution(random);
  return x;
}

RowSource rows_of(const std::vector<float>& weights, uint64_t cols) {
  return [&weights, cols](uint64_t row, std::span<float> out) {
    std::copy_n(weights.begin() + static_cast<ptrdiff_t>(row * cols), cols, out.begin());
  };
}

// Root mean square of the differences, relative to what is expected.
double difference(std::span<const float> actual, std::span<const float> expected) {
  EXPECT_EQ(actual.size(), expected.size());
  double sum = 0, power = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    sum += std::pow(double{actual[i]} - expected[i], 2);
    power += std::pow(double{expected[i]}, 2);
  }
  return std::sqrt(sum / power);
}

class CudaAccelerator : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cuda::has_gpu()) GTEST_SKIP() << "no GPU here";
    device_ = cuda::open_accelerator(pool_);
  }
  ForEach for_each() {
    return [this](uint64_t n, const std::function<void(uint64_t)>& f) {
      pool_.each(n, [&](uint64_t i, unsigned) { f(i); });
    };
  }
  // Tokens whose columns are correlated and of very different sizes, as in a model.
  static std::vector<float> tokens(uint64_t n, uint64_t cols, uint32_t seed) {
    const std::vector<float> noise = normal(n * cols, seed);
    std::vector<float> x(n * cols);
    for (uint64_t t = 0; t < n; ++t)
      for (uint64_t c = 0; c < cols; ++c)
        x[t * cols + c] = (noise[t * cols + c] + 0.8f * noise[t * cols + c / 2]) * (c % 7 == 0 ? 5.0f : 0.5f);
    return x;
  }

  ThreadPool pool_;
  std::unique_ptr<Accelerator> device_;
};

TEST_F(CudaAccelerator, MultipliesTokensOfAnyNumberWithWeightsOfAnyCodec) {
  OpContext cpu(0), gpu(0);
  gpu.accelerator = device_.get();
  for (auto [rows, cols, n] : {std::tuple{1, 1, 1}, {33, 31, 5}, {200, 300, 129}, {1500, 257, 64}, {64, 4096, 512}}) {
    const auto r = static_cast<uint64_t>(rows), c = static_cast<uint64_t>(cols), t = static_cast<uint64_t>(n);
    const std::vector<float> weights = normal(r * c, 1), x = normal(t * c, 2);
    for (const Codec* codec : {&kF32Codec, &kBf16Codec, &kF16Codec, &kTrellis3Codec}) {
      const EncodedMatrix encoded = codec->encode(r, c, rows_of(weights, c), {});
      const Linear linear(open_encoded(encoded), "w");
      std::vector<float> expected(t * r), actual(t * r);
      linear.apply(cpu, x.data(), t, Activations::kFloat, expected.data());
      linear.apply(gpu, x.data(), t, Activations::kFloat, actual.data());
      EXPECT_LT(difference(actual, expected), 2e-3) << codec->id << " " << rows << " x " << cols << " times " << n;
      device_->forget(linear);
    }
  }
}

// weights += (a W drift + b stream) H^-1, by the row functions of codec/feedback.h.
TEST_F(CudaAccelerator, StatisticsCorrectWeightsAsOnTheCpu) {
  constexpr float kInput = 0.5f, kStream = 0.3f, kTokens = 700;
  constexpr double kDamping = 0.03;
  constexpr uint64_t kLanes = 16;
  for (auto [rows, cols] : {std::pair<uint64_t, uint64_t>{48, 96}, {130, 200}, {7, 33}}) {
    const std::vector<float> weights = normal(rows * cols, 3);
    for (const bool to_stream : {false, true}) {
      Moments moments{cols, std::vector<float>(cols * cols)};
      std::vector<float> drift(cols * cols), stream(rows * cols);
      const std::shared_ptr<DeviceSums> sums = device_->sums(cols, to_stream ? rows : 0);
      for (uint64_t n : {512, 188}) {
        const std::vector<float> x = tokens(n, cols, static_cast<uint32_t>(n)), d = tokens(n, cols, 5);
        const std::vector<float> s = normal(n * rows, 6);
        sums->add(x.data(), d.data(), n);
        if (to_stream) sums->add_stream(s.data());
        for (uint64_t t = 0; t < n; ++t)
          for (uint64_t c = 0; c < cols; ++c) {
            const float share = x[t * cols + c] / kTokens;
            for (uint64_t r = 0; r < cols; ++r) {
              moments.values[r * cols + c] += x[t * cols + r] * share;
              drift[r * cols + c] += d[t * cols + r] * share;
            }
            for (uint64_t r = 0; to_stream && r < rows; ++r) stream[r * cols + c] += s[t * rows + r] * share;
          }
      }
      const std::vector<float> all = sums->moments();
      std::vector<float> lower, lower_expected;
      for (uint64_t r = 0; r < cols; ++r)
        for (uint64_t c = 0; c <= r; ++c) {
          lower.push_back(all[r * cols + c]);
          lower_expected.push_back(moments.values[r * cols + c]);
        }
      EXPECT_LT(difference(lower, lower_expected), 1e-3);

      std::vector<uint32_t> order(cols);
      for (uint32_t k = 0; k < cols; ++k) order[k] = k;
      const Feedback factored = factor_moments(moments, order, kDamping, for_each());
      std::vector<float> expected(rows * cols), actual = weights;
      for (uint64_t begin = 0; begin < rows; begin += kLanes) {
        const uint64_t lanes = std::min(kLanes, rows - begin);
        std::vector<float> panel(cols * kLanes), missing(cols * kLanes);
        for (uint64_t j = 0; j < lanes; ++j)
          for (uint64_t c = 0; c < cols; ++c) {
            panel[c * kLanes + j] = kInput * weights[(begin + j) * cols + c];
            missing[c * kLanes + j] = kStream * stream[(begin + j) * cols + c];
          }
        add_row_products(drift.data(), cols, panel.data(), missing.data());
        solve_rows(factored, missing.data());
        for (uint64_t j = 0; j < lanes; ++j)
          for (uint64_t c = 0; c < cols; ++c) expected[(begin + j) * cols + c] = missing[c * kLanes + j];
      }
      sums->correct(rows, kInput, kStream, kDamping, actual.data());
      for (size_t i = 0; i < weights.size(); ++i) actual[i] -= weights[i];
      EXPECT_LT(difference(actual, expected), 5e-3) << rows << " x " << cols << (to_stream ? ", to the stream" : "");
    }
  }
}

TEST_F(CudaAccelerator, FactorsMomentsAsTheCpu) {
  for (uint64_t cols : {1, 31, 64, 100, 333}) {
    const uint64_t n_tokens = 300;
    const std::vector<float> x = tokens(n_tokens, cols, 9);
    Moments moments{cols, std::vector<float>(cols * cols)};
    for (uint64_t t = 0; t < n_tokens; ++t)
      for (uint64_t r = 0; r < cols; ++r)
        for (uint64_t c = 0; c < cols; ++c)
          moments.values[r * cols + c] += x[t * cols + r] * x[t * cols + c] / static_cast<float>(n_tokens);
    std::vector<uint32_t> order((cols + 31) / 32 * 32);
    for (uint32_t k = 0; k < order.size(); ++k) order[k] = k ^ 5;  // some order, with padding in between
    const Feedback expected = factor_moments(moments, order, 0.01, for_each());
    const std::vector<float> actual = device_->factor(moments, order, 0.01);
    EXPECT_LT(difference(actual, expected.variance), 1e-3) << cols;
    moments.values.assign(cols * cols, 0.0f);
    EXPECT_LT(
        difference(device_->factor(moments, order, 0.01), factor_moments(moments, order, 0.01, for_each()).variance),
        1e-6)
        << cols << " silent columns";
  }
}

TEST_F(CudaAccelerator, EncodesAsTheCpu) {
  for (auto [rows, cols] : {std::pair<uint64_t, uint64_t>{1, 1}, {17, 31}, {16, 32}, {40, 1000}, {200, 544}}) {
    std::vector<float> weights = normal(rows * cols, 11);
    for (uint64_t i = 0; i < weights.size(); i += 97) weights[i] *= 6;                // outliers
    for (uint64_t c = 0; c < cols && rows > 3; ++c) weights[2 * cols + c] = 0;        // an empty row
    for (uint64_t c = 0; c < cols && rows > 3; ++c) weights[3 * cols + c] *= 1e-30f;  // a very small one
    const uint64_t n_tokens = 2 * cols + 50;
    const std::vector<float> x = tokens(n_tokens, cols, 12);
    Moments moments{cols, std::vector<float>(cols * cols)};
    for (uint64_t t = 0; t < n_tokens; ++t)
      for (uint64_t r = 0; r < cols; ++r)
        for (uint64_t c = 0; c <= r; ++c) moments.values[r * cols + c] += x[t * cols + r] * x[t * cols + c];
    for (const Codec* codec : kTrellisCodecs)
      for (const bool calibrated : {false, true})
        for (const uint64_t residual : {uint64_t{0}, 8 * rows + rows * cols / 20}) {
          EncodeOptions options;
          options.parallel = for_each();
          options.residual_bytes = residual;
          if (calibrated) options.moments = &moments;
          const EncodedMatrix expected = codec->encode(rows, cols, rows_of(weights, cols), options);
          options.device = device_.get();
          const EncodedMatrix actual = codec->encode(rows, cols, rows_of(weights, cols), options);
          const std::string label = fmt::format("{} {} x {}{}{}", codec->id, rows, cols,
                                                calibrated ? " calibrated" : "", residual ? " with a residual" : "");
          const auto noise = [&](const EncodedMatrix& encoded) {
            const Matrix matrix = open_encoded(encoded);
            std::vector<float> decoded(cols);
            double sum = 0;
            for (uint64_t r = 0; r < rows; ++r) {
              codec->decode_row(matrix, r, decoded.data());
              for (uint64_t c = 0; c < cols; ++c) sum += std::pow(double{decoded[c]} - weights[r * cols + c], 2);
            }
            return std::sqrt(sum);
          };
          ASSERT_EQ(actual.components.size(), expected.components.size()) << label;
          const double near = rows * cols < 1000 ? 0.1 : 0.01;
          EXPECT_NEAR(noise(actual) / noise(expected), 1, near) << label;
          if (calibrated) {
            EXPECT_NEAR(actual.weighted_error / expected.weighted_error, 1, near) << label;
          }
        }
  }
}

class CudaCompress : public CudaAccelerator {
 protected:
  void SetUp() override {
    CudaAccelerator::SetUp();
    folder_ = std::filesystem::temp_directory_path() / fmt::format("upg_cuda_compress_{}", getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  CompressReport run(const std::string& source, CompressOptions options, const std::string& device) {
    options.device = device;
    return compress(source, folder_ / (device + ".upg"), options);
  }
  std::filesystem::path folder_;
};

TEST_F(CudaCompress, TheDemoModelLosesAsMuchAsOnTheCpu) {
  CompressOptions options;
  options.calibration_tokens = 8192;
  const std::string demo = testing_util::source_path("models/demo");
  const CompressReport cpu = run(demo, options, "cpu"), gpu = run(demo, options, "cuda");
  ASSERT_TRUE(cpu.model.measured_loss && gpu.model.measured_loss);
  EXPECT_NEAR(*gpu.model.measured_loss / *cpu.model.measured_loss, 1, 0.1);  // of some thousand tokens
  EXPECT_GT(gpu.device_peak_bytes, 0u);
  std::printf("loss %.5f on the GPU, %.5f on the CPU; %.1f s and %.1f s\n", *gpu.model.measured_loss,
              *cpu.model.measured_loss, gpu.seconds, cpu.seconds);
}

}  // namespace
}  // namespace upg
