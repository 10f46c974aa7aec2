// Error feedback: the factors multiply to the moments in any order of columns, and the solver inverts them.
#include "codec/feedback.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace upg {
namespace {

constexpr unsigned kLanes = 16;

const ForEach kSerially = [](uint64_t n, const std::function<void(uint64_t)>& f) {
  for (uint64_t i = 0; i < n; ++i) f(i);
};

// Moments of correlated inputs, and a column that is always zero.
Moments correlated(uint64_t cols, uint32_t seed, uint64_t samples = 400) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Moments moments{cols, std::vector<float>(cols * cols)};
  std::vector<float> x(cols);
  for (uint64_t s = 0; s < samples; ++s) {
    float before = 0;
    for (uint64_t c = 0; c < cols; ++c) x[c] = before = 0.8f * before + normal(random);
    x[cols / 2] = 0;
    for (uint64_t r = 0; r < cols; ++r)
      for (uint64_t c = 0; c < cols; ++c) moments.values[r * cols + c] += x[r] * x[c] / static_cast<float>(samples);
  }
  return moments;
}

std::vector<uint32_t> shuffled(uint64_t n, uint32_t seed) {
  std::vector<uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  return order;
}

TEST(Feedback, FactorsMultiplyToTheDampedMomentsInTheOrderOfProcessing) {
  for (uint64_t cols : {1, 5, 32, 63, 64, 65, 130, 200}) {
    const Moments moments = correlated(cols, static_cast<uint32_t>(cols));
    const std::vector<uint32_t> order = shuffled(cols, 7);
    const Feedback f = factor_moments(moments, order, 0.01, kSerially);
    double mean = 0;
    for (uint64_t c = 0; c < cols; ++c) mean += double{moments.values[c * cols + c]} / static_cast<double>(cols);
    if (mean == 0) mean = 1;  // one column, always zero
    auto factor = [&](uint64_t i, uint64_t k) { return i == k ? 1.0 : i < k ? double{f.factor[k * cols + i]} : 0.0; };
    for (uint64_t a = 0; a < cols; ++a) {
      for (uint64_t b = 0; b < cols; ++b) {
        double product = 0;
        for (uint64_t k = std::max(a, b); k < cols; ++k) product += factor(a, k) * double{f.variance[k]} * factor(b, k);
        double expected = double{moments.values[order[a] * cols + order[b]]} + (a == b ? 0.01 * mean : 0);
        if (cols == 1) expected = 1.01;  // nothing known: white noise
        ASSERT_NEAR(product, expected, 2e-5 * mean) << cols << " columns, " << a << " " << b;
      }
    }
  }
}

TEST(Feedback, PaddingNeitherFeedsNorWeighs) {
  const Moments moments = correlated(40, 1);
  std::vector<uint32_t> order = shuffled(64, 2);  // 40 to 63 are padding
  const Feedback f = factor_moments(moments, order, 0.01, kSerially);
  for (uint64_t k = 0; k < 64; ++k) {
    if (order[k] < 40) {
      EXPECT_GT(f.variance[k], 0);
      for (uint64_t i = 0; i < k; ++i)
        if (order[i] >= 40) {
          EXPECT_EQ(f.factor[k * 64 + i], 0);
        }
    } else {
      EXPECT_EQ(f.variance[k], 0);
      for (uint64_t i = 0; i < k; ++i) EXPECT_EQ(f.factor[k * 64 + i], 0);
    }
  }
}

TEST(Feedback, ColumnsThatAreCopiesStayFinite) {
  Moments moments{96, std::vector<float>(96 * 96, 3.0f)};
  const Feedback f = factor_moments(moments, shuffled(96, 3), 0.01, kSerially);
  for (float d : f.variance) {
    EXPECT_GT(d, 0);
    EXPECT_TRUE(std::isfinite(d));
  }
  for (float m : f.factor) EXPECT_TRUE(std::isfinite(m));
}

TEST(Feedback, SolvingUndoesTheProduct) {
  for (uint64_t cols : {1, 33, 100}) {
    const Moments moments = correlated(cols, 9);
    const std::vector<uint32_t> order = shuffled(cols, 4);
    const Feedback f = factor_moments(moments, order, 0.05, kSerially);
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    std::vector<float> x(cols * kLanes), product(cols * kLanes);
    for (float& value : x) value = normal(random);
    double mean = 0;
    for (uint64_t c = 0; c < cols; ++c) mean += double{moments.values[c * cols + c]} / static_cast<double>(cols);
    for (uint64_t a = 0; a < cols; ++a)
      for (uint64_t b = 0; b < cols; ++b) {
        float h = moments.values[order[a] * cols + order[b]];
        if (a == b) h += static_cast<float>(0.05 * mean);
        if (cols == 1) h = 1.05f;
        for (unsigned j = 0; j < kLanes; ++j) product[b * kLanes + j] += x[a * kLanes + j] * h;
      }
    solve_rows(f, product.data());
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(product[i], x[i], 2e-3) << cols;
  }
}

TEST(Feedback, RowProductsAndFedErrorsAreSums) {
  const uint64_t n = 37;
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  Feedback f;
  f.n = n;
  f.factor.resize(n * n);
  for (float& value : f.factor) value = normal(random);
  std::vector<float> rows(n * kLanes), out(n * kLanes, 1.0f), targets(n * kLanes, 2.0f);
  for (float& value : rows) value = normal(random);
  add_row_products(f.factor.data(), n, rows.data(), out.data());
  feed_errors(f, 3, 5, rows.data(), targets.data());
  for (uint64_t c = 0; c < n; ++c) {
    for (unsigned j = 0; j < kLanes; ++j) {
      double sum = 1;
      for (uint64_t i = 0; i < n; ++i) sum += double{rows[i * kLanes + j]} * double{f.factor[i * n + c]};
      EXPECT_NEAR(out[c * kLanes + j], sum, 1e-4);
      double fed = 2;
      for (uint64_t i = 0; i < 5 && c >= 8; ++i) fed += double{rows[i * kLanes + j]} * double{f.factor[c * n + 3 + i]};
      EXPECT_NEAR(targets[c * kLanes + j], fed, 1e-5);
    }
  }
}

}  // namespace
}  // namespace upg
