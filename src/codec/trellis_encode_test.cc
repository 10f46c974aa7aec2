// Encoding to the manifold trellis: how close weights come, odd shapes and magnitudes, the same bytes on any number of
// threads. The search inside is in trellis_search_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/thread_pool.h"
#include "codec/trellis.h"
#include "upg/error.h"

namespace upg {
namespace {

using ::testing::HasSubstr;

const Codec* const kTrellisCodecs[] = {&kTrellis2Codec, &kTrellis3Codec, &kTrellis4Codec};

struct Dense {
  uint64_t rows;
  uint64_t cols;
  std::vector<float> weights;

  RowSource source() const {
    return [this](uint64_t row, std::span<float> out) {
      std::copy_n(weights.begin() + static_cast<ptrdiff_t>(row * cols), cols, out.begin());
    };
  }
  EncodedMatrix encode(const Codec& codec, const EncodeOptions& options = {}) const {
    return codec.encode(rows, cols, source(), options);
  }
};

Dense gaussian(uint64_t rows, uint64_t cols, uint32_t seed, float scale = 1.0f) {
  Dense dense{rows, cols, std::vector<float>(rows * cols)};
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  for (float& weight : dense.weights) weight = normal(random);
  return dense;
}

std::vector<float> decoded(const EncodedMatrix& encoded) {
  std::vector<float> out(encoded.rows * encoded.cols, 99.0f);
  const Matrix matrix = open_encoded(encoded);
  for (uint64_t row = 0; row < encoded.rows; ++row)
    encoded.codec->decode_row(matrix, row, out.data() + row * encoded.cols);
  return out;
}

// ||decoded - original|| / ||original|| over [begin, end).
double relative_error(const Dense& dense, const std::vector<float>& out, size_t begin = 0, size_t end = SIZE_MAX) {
  double noise = 0, power = 0;
  for (size_t i = begin; i < std::min(end, out.size()); ++i) {
    noise += std::pow(double{out[i]} - double{dense.weights[i]}, 2);
    power += std::pow(double{dense.weights[i]}, 2);
  }
  return std::sqrt(noise / power);
}

TEST(TrellisEncode, GaussianWeightsComeCloserWithEachBit) {
  const Dense dense = gaussian(64, 1024, 1);
  // Measured 0.3008, 0.1468, 0.0752. The best scalar quantisers of 2, 3 and 4 bits reach 0.343, 0.186, 0.097 (Max
  // 1960); below 2^-k lies what no code of that rate can do.
  constexpr double kAllowed[] = {0.310, 0.152, 0.078};
  for (unsigned i = 0; i < 3; ++i) {
    const double error = relative_error(dense, decoded(dense.encode(*kTrellisCodecs[i])));
    EXPECT_LT(error, kAllowed[i]) << kTrellisCodecs[i]->id;
    EXPECT_GT(error, std::pow(2.0, -2.0 - i)) << kTrellisCodecs[i]->id;
  }
}

TEST(TrellisEncode, OddShapesFillEveryWeight) {
  for (const Codec* codec : kTrellisCodecs) {
    for (auto [rows, cols] : {std::pair<uint64_t, uint64_t>{1, 1},
                              {1, 33},
                              {17, 31},
                              {16, 32},
                              {33, 1},
                              {2, 100},
                              {100, 2},
                              {15, 64},
                              {31, 257}}) {
      const Dense dense = gaussian(rows, cols, static_cast<uint32_t>(rows * 1000 + cols));
      const EncodedMatrix encoded = dense.encode(*codec);
      EXPECT_EQ(encoded.bytes(), codec->stored_bytes(rows, cols, 0));
      const double error = relative_error(dense, decoded(encoded));
      EXPECT_LT(error, 0.4) << codec->id << ' ' << rows << " x " << cols;
    }
  }
}

TEST(TrellisEncode, MatricesWithoutRowsOrColumnsEncodeAndOpen) {
  for (const Codec* codec : kTrellisCodecs)
    for (auto [rows, cols] : {std::pair<uint64_t, uint64_t>{0, 0}, {0, 7}, {5, 0}}) {
      const Dense dense{rows, cols, {}};
      const EncodedMatrix encoded = dense.encode(*codec);
      EXPECT_EQ(encoded.bytes(), codec->stored_bytes(rows, cols, 0));
      EXPECT_TRUE(decoded(encoded).empty());
    }
}

TEST(TrellisEncode, ZeroRowsStayZeroAndDoNotDisturbOthers) {
  for (const Codec* codec : kTrellisCodecs) {
    Dense dense = gaussian(20, 96, 3);
    for (uint64_t row : {0, 7, 19}) std::fill_n(dense.weights.begin() + static_cast<ptrdiff_t>(row * 96), 96, 0.0f);
    const auto out = decoded(dense.encode(*codec));
    for (uint64_t row = 0; row < 20; ++row) {
      const bool zero = row == 0 || row == 7 || row == 19;
      for (uint64_t col = 0; col < 96; ++col) ASSERT_TRUE(!zero || out[row * 96 + col] == 0) << codec->id;
      EXPECT_TRUE(zero || relative_error(dense, out, row * 96, row * 96 + 96) < 0.45) << codec->id << ", row " << row;
    }
    const Dense nothing{20, 96, std::vector<float>(20 * 96)};
    for (float weight : decoded(nothing.encode(*codec))) ASSERT_EQ(weight, 0);
  }
}

TEST(TrellisEncode, ConstantRowsComeClose) {
  for (const Codec* codec : kTrellisCodecs) {
    for (float value : {1.0f, -0.03f}) {
      const Dense dense{18, 70, std::vector<float>(18 * 70, value)};
      EXPECT_LT(relative_error(dense, decoded(dense.encode(*codec))), 0.1) << codec->id;
    }
  }
}

TEST(TrellisEncode, TheErrorDoesNotDependOnTheMagnitudeOfARow) {
  // Within one matrix, so that one table serves them all.
  for (const Codec* codec : kTrellisCodecs) {
    const Dense usual = gaussian(32, 256, 5);
    Dense scaled = usual;
    std::vector<int> exponents;
    for (uint64_t row = 0; row < 32; ++row) {
      exponents.push_back(static_cast<int>(row * 5) - 80);
      for (uint64_t col = 0; col < 256; ++col) scaled.weights[row * 256 + col] *= std::ldexp(1.0f, exponents.back());
    }
    const auto a = decoded(usual.encode(*codec)), b = decoded(scaled.encode(*codec));
    for (uint64_t row = 0; row < 32; ++row)
      for (uint64_t col = 0; col < 256; ++col)
        ASSERT_EQ(std::ldexp(a[row * 256 + col], exponents[row]), b[row * 256 + col]) << codec->id << ", row " << row;
  }
}

TEST(TrellisEncode, RowsBelowTheScaleRangeBecomeZeroAndRowsAboveAreRefused) {
  for (const Codec* codec : kTrellisCodecs) {
    Dense dense = gaussian(17, 64, 6);
    for (uint64_t col = 0; col < 64; ++col) dense.weights[16 * 64 + col] = 1e-38f;
    const auto out = decoded(dense.encode(*codec));
    for (uint64_t col = 0; col < 64; ++col) EXPECT_EQ(out[16 * 64 + col], 0);
    dense.weights[3 * 64] = 1e30f;
    try {
      dense.encode(*codec);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
      EXPECT_THAT(error.what(), HasSubstr("row 3"));
    }
  }
}

TEST(TrellisEncode, AnOutlierIsClippedButKeepsItsSignAndSomeOfItsSize) {
  for (const Codec* codec : kTrellisCodecs) {
    for (float outlier : {10.0f, -100.0f, 1e6f}) {
      Dense dense = gaussian(16, 1024, 7);
      for (uint64_t row = 0; row < 16; ++row) dense.weights[row * 1024 + row * 60] = outlier;
      const auto out = decoded(dense.encode(*codec));
      for (float weight : out) ASSERT_TRUE(std::isfinite(weight));
      for (uint64_t row = 0; row < 16; ++row) {
        EXPECT_GT(out[row * 1024 + row * 60] / outlier, 0.2f) << codec->id << ", outlier " << outlier;
        EXPECT_LT(out[row * 1024 + row * 60] / outlier, 1.2f) << codec->id << ", outlier " << outlier;
      }
      EXPECT_LT(relative_error(dense, out), 0.8) << codec->id << ", outlier " << outlier;
    }
  }
}

TEST(TrellisEncode, TheBytesDoNotDependOnThreads) {
  const Dense dense = gaussian(100, 200, 8);
  ThreadPool pool(4);
  EncodeOptions parallel;
  parallel.parallel = [&](uint64_t n, const std::function<void(uint64_t)>& f) {
    pool.each(n, [&](uint64_t i, unsigned) { f(i); });
  };
  for (const Codec* codec : kTrellisCodecs) {
    const EncodedMatrix a = dense.encode(*codec), b = dense.encode(*codec, parallel),
                        c = dense.encode(*codec, parallel);
    ASSERT_EQ(a.components.size(), b.components.size());
    for (size_t i = 0; i < a.components.size(); ++i) {
      EXPECT_EQ(a.components[i].data, b.components[i].data) << codec->id << ' ' << a.components[i].suffix;
      EXPECT_EQ(c.components[i].data, b.components[i].data) << codec->id << ' ' << a.components[i].suffix;
    }
  }
}

// x^T x / n of inputs whose neighbours resemble each other.
Moments correlated_moments(uint64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Moments moments{cols, std::vector<float>(cols * cols)};
  std::vector<float> x(cols);
  for (int s = 0; s < 500; ++s) {
    float before = 0;
    for (float& value : x) value = before = 0.9f * before + normal(random);
    for (uint64_t r = 0; r < cols; ++r)
      for (uint64_t c = 0; c < cols; ++c) moments.values[r * cols + c] += x[r] * x[c] / 500.0f;
  }
  return moments;
}

// Sum over rows of e H e^T.
double output_error(const Dense& dense, const std::vector<float>& out, const Moments& moments) {
  double sum = 0;
  for (uint64_t row = 0; row < dense.rows; ++row) {
    std::vector<double> e(dense.cols);
    for (uint64_t c = 0; c < dense.cols; ++c)
      e[c] = double{out[row * dense.cols + c]} - double{dense.weights[row * dense.cols + c]};
    for (uint64_t a = 0; a < dense.cols; ++a)
      for (uint64_t b = 0; b < dense.cols; ++b) sum += e[a] * e[b] * double{moments.values[a * dense.cols + b]};
  }
  return sum;
}

TEST(TrellisEncode, MomentsHalveTheErrorOfTheProductAndItIsReported) {
  for (const Codec* codec : kTrellisCodecs) {
    const Dense dense = gaussian(21, 100, 5, 0.02f);
    const Moments moments = correlated_moments(100, 6);
    EncodeOptions options;
    options.moments = &moments;
    options.damping = 1e-4;
    const EncodedMatrix fed = dense.encode(*codec, options);
    const double with = output_error(dense, decoded(fed), moments);
    const double without = output_error(dense, decoded(dense.encode(*codec)), moments);
    EXPECT_LT(with, 0.5 * without) << codec->id;
    EXPECT_NEAR(fed.weighted_error, with, 0.02 * with) << codec->id;
  }
}

TEST(TrellisEncode, AResidualPlaneHoldsOutliersWithinItsBytes) {
  for (const Codec* codec : kTrellisCodecs) {
    for (bool with_moments : {false, true}) {
      Dense dense = gaussian(21, 100, 7, 0.02f);
      for (uint64_t i = 0; i < 40; ++i) dense.weights[(i * 811) % dense.weights.size()] = i % 2 ? 0.5f : -0.4f;
      const Moments moments = correlated_moments(100, 8);
      EncodeOptions options;
      if (with_moments) options.moments = &moments;
      const EncodedMatrix plain = dense.encode(*codec, options);
      for (uint64_t bytes : {100, 180, 300, 400}) {
        options.residual_bytes = bytes;
        const EncodedMatrix more = dense.encode(*codec, options);
        EXPECT_LE(more.bytes(), plain.bytes() + bytes);
        // Less than the fixed cost and an entry: no plane.
        if (bytes <= 21 * 8 + 4) {
          EXPECT_EQ(more.bytes(), plain.bytes());
        } else {
          EXPECT_GE(more.bytes(), plain.bytes() + std::min<uint64_t>(bytes, 172 + 60) - 8);
        }
      }
      const std::vector<float> out = decoded(dense.encode(*codec, options));
      EXPECT_LT(relative_error(dense, out), 0.4 * relative_error(dense, decoded(plain))) << codec->id << with_moments;
    }
  }
}

}  // namespace
}  // namespace upg
