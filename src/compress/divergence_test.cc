// KL divergence against its definition in double.
#include "compress/divergence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace upg {
namespace {

std::vector<double> softmax(const float* logits, uint64_t n) {
  double sum = 0;
  for (uint64_t i = 0; i < n; ++i) sum += std::exp(double{logits[i]});
  std::vector<double> p;
  for (uint64_t i = 0; i < n; ++i) p.push_back(std::exp(double{logits[i]}) / sum);
  return p;
}

TEST(Divergence, IsWhatItsDefinitionSays) {
  constexpr uint64_t kVocab = 101, kTokens = 5;
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> a(kVocab * kTokens), b(kVocab * kTokens);
  for (float& x : a) x = normal(random);
  for (size_t i = 0; i < b.size(); ++i) b[i] = a[i] + 0.1f * normal(random);
  const Predictions reference(a.data(), kTokens, kVocab);
  for (uint64_t first : {0, 2}) {
    double expected = 0;
    for (uint64_t t = first; t < kTokens; ++t) {
      const auto p = softmax(a.data() + t * kVocab, kVocab), q = softmax(b.data() + t * kVocab, kVocab);
      for (uint64_t i = 0; i < kVocab; ++i) expected += p[i] * std::log(p[i] / q[i]);
    }
    EXPECT_NEAR(reference.divergence(first, b.data() + first * kVocab, kTokens - first), expected, 1e-4 * expected);
  }
  EXPECT_NEAR(reference.divergence(0, a.data(), kTokens), 0, 1e-5);
}

TEST(Divergence, LargeLogitsStayFinite) {
  const std::vector<float> a = {1e4f, -1e4f, 0}, b = {9e3f, 1e4f, -1e4f};
  EXPECT_NEAR(Predictions(a.data(), 1, 3).divergence(0, b.data(), 1), 1000, 1);
}

}  // namespace
}  // namespace upg
