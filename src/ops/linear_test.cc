// Matrix products of every codec against a product with the decoded rows in double: odd shapes, one token and many,
// any number of threads.
#include "ops/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "codec/codec_table.h"

namespace upg {
namespace {

std::vector<float> random_floats(size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& x : values) x = normal(generator);
  return values;
}

struct Encoded {
  Encoded(const Codec& codec, uint64_t rows, uint64_t cols) {
    const std::vector<float> weights = random_floats(rows * cols, static_cast<unsigned>(rows * 1000 + cols));
    EncodeOptions options;
    options.density = 0.3;
    stored = codec.encode(
        rows, cols,
        [&](uint64_t row, std::span<float> out) {
          std::copy_n(weights.begin() + static_cast<ptrdiff_t>(row * cols), cols, out.begin());
        },
        options);
    matrix = open_encoded(stored);
  }
  EncodedMatrix stored;
  Matrix matrix;
};

class LinearCodecs : public ::testing::TestWithParam<const Codec*> {
 protected:
  // y and, for each, the sum of |w x|: rounding errors are a share of it.
  void by_definition(const Matrix& m, const std::vector<float>& x, uint64_t n, std::vector<double>& y,
                     std::vector<double>& size) {
    y.assign(n * m.rows, 0);
    size.assign(n * m.rows, 0);
    std::vector<float> row(m.cols);
    for (uint64_t r = 0; r < m.rows; ++r) {
      m.codec->decode_row(m, r, row.data());
      for (uint64_t t = 0; t < n; ++t)
        for (uint64_t c = 0; c < m.cols; ++c) {
          const double product = static_cast<double>(row[c]) * x[t * m.cols + c];
          y[t * m.rows + r] += product;
          size[t * m.rows + r] += std::abs(product);
        }
    }
  }
};

TEST_P(LinearCodecs, ProductsAreThoseOfTheDecodedRows) {
  const std::pair<uint64_t, uint64_t> shapes[] = {{1, 1}, {17, 36}, {32, 256}, {33, 300}, {64, 40}};
  for (const auto& [rows, cols] : shapes) {
    const Encoded encoded(*GetParam(), rows, cols);
    const Linear linear(encoded.matrix);
    EXPECT_EQ(linear.rows(), rows);
    EXPECT_EQ(linear.cols(), cols);
    for (uint64_t n : {1u, 2u, 5u, 19u}) {
      const std::vector<float> x = random_floats(n * cols, static_cast<unsigned>(n));
      std::vector<double> expected, size;
      by_definition(encoded.matrix, x, n, expected, size);
      OpContext context(1);
      std::vector<float> y(n * rows, -1.0f);
      linear.apply(context, x.data(), n, Activations::kFloat, y.data());
      for (size_t i = 0; i < y.size(); ++i)  // (terms + 1) roundings of at most 2^-24 each
        ASSERT_NEAR(y[i], expected[i], size[i] * static_cast<double>(cols + 8) * 0x1p-24 + 1e-30)
            << rows << " x " << cols << ", tokens " << n << ", element " << i;
    }
  }
}

TEST_P(LinearCodecs, QuantisedActivationsAreClose) {
  const Encoded encoded(*GetParam(), 48, 320);
  const Linear linear(encoded.matrix);
  const std::vector<float> x = random_floats(320, 5);
  std::vector<double> expected, size;
  by_definition(encoded.matrix, x, 1, expected, size);
  OpContext context(1);
  std::vector<float> y(48);
  linear.apply(context, x.data(), 1, Activations::kQuantized, y.data());
  double noise = 0, power = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    noise += (y[i] - expected[i]) * (y[i] - expected[i]);
    power += expected[i] * expected[i];
  }
  EXPECT_LT(std::sqrt(noise / power), 0.02);
}

TEST_P(LinearCodecs, ThreadsDoNotChangeABit) {
  const Encoded encoded(*GetParam(), 83, 100);
  const Linear linear(encoded.matrix);
  for (const Activations activations : {Activations::kFloat, Activations::kQuantized})
    for (uint64_t n : {1u, 7u}) {
      const std::vector<float> x = random_floats(n * 100, 3);
      std::vector<float> first(n * 83);
      OpContext one(1);
      linear.apply(one, x.data(), n, activations, first.data());
      for (unsigned threads : {2u, 3u, 5u}) {
        std::vector<float> y(n * 83);
        OpContext several(threads);
        linear.apply(several, x.data(), n, activations, y.data());
        EXPECT_EQ(y, first) << threads << " threads, " << n << " tokens";
      }
    }
}

INSTANTIATE_TEST_SUITE_P(Codecs, LinearCodecs, ::testing::ValuesIn(codecs().begin(), codecs().end()),
                         [](const auto& test) { return std::string(test.param->id); });

}  // namespace
}  // namespace upg
