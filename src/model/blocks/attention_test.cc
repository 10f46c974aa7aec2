// Causal attention against its definition in double: groups, windows, positions already in the cache.
#include "model/blocks/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/float16.h"

namespace upg {
namespace {

struct Case {
  AttentionShape shape;
  uint64_t rotary_dim;
  std::vector<uint64_t> passes;  // tokens of consecutive calls
};

std::vector<float> random_floats(size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& x : values) x = normal(generator);
  return values;
}

// One token a row, all rows at once, with keys and values rounded to f16 as the cache does.
std::vector<double> by_definition(const AttentionShape& s, const Rope& rope, std::vector<float> qkv, uint64_t n) {
  const uint64_t d = s.head_dim, width = (s.heads + 2 * s.kv_heads) * d;
  std::vector<double> out(n * s.heads * d);
  for (uint64_t t = 0; t < n; ++t) {
    std::vector<float> angles(rope.rotary_dim());
    rope.angles(t, angles.data());
    for (uint64_t h = 0; h < s.heads + s.kv_heads; ++h) rope.turn(&qkv[t * width + h * d], angles.data());
    for (uint64_t i = s.heads * d; i < width; ++i) qkv[t * width + i] = f16_to_float(float_to_f16(qkv[t * width + i]));
  }
  for (uint64_t t = 0; t < n; ++t)
    for (uint64_t h = 0; h < s.heads; ++h) {
      const uint64_t shared = h / (s.heads / s.kv_heads);
      const uint64_t first = s.window > 0 && t + 1 > s.window ? t + 1 - s.window : 0;
      std::vector<double> weight;
      double total = 0;
      for (uint64_t p = first; p <= t; ++p) {
        double dot = 0;
        for (uint64_t i = 0; i < d; ++i)
          dot += static_cast<double>(qkv[t * width + h * d + i]) * qkv[p * width + (s.heads + shared) * d + i];
        weight.push_back(std::exp(dot / std::sqrt(static_cast<double>(d))));
        total += weight.back();
      }
      for (uint64_t p = first; p <= t; ++p)
        for (uint64_t i = 0; i < d; ++i)
          out[(t * s.heads + h) * d + i] +=
              weight[p - first] / total * qkv[p * width + (s.heads + s.kv_heads + shared) * d + i];
    }
  return out;
}

std::vector<float> in_passes(const Case& c, const Rope& rope, std::vector<float> qkv, unsigned threads) {
  const uint64_t width = (c.shape.heads + 2 * c.shape.kv_heads) * c.shape.head_dim;
  OpContext context(threads);
  const KvLayer layer{c.shape.kv_heads, c.shape.head_dim, c.shape.head_dim, c.shape.window};
  KvCache cache({{layer, layer}}, 32, find_kv_type("f16"));
  std::vector<float> out(qkv.size() / width * c.shape.heads * c.shape.head_dim);
  uint64_t at = 0;
  for (uint64_t n : c.passes) {
    causal_attention(context, c.shape, {rope}, 1, &qkv[at * width], Batch(cache, n),
                     &out[at * c.shape.heads * c.shape.head_dim]);
    at += n;
    cache.set_length(at);
  }
  return out;
}

TEST(CausalAttention, IsItsDefinitionWhateverTheShapeAndThePasses) {
  const Case cases[] = {
      {{4, 2, 6, 0}, 6, {9}},         {{4, 2, 6, 0}, 6, {1, 1, 3, 4}}, {{3, 1, 12, 0}, 8, {5, 2}},
      {{5, 5, 8, 3}, 8, {11}},        {{4, 1, 32, 1}, 32, {2, 3}},     {{2, 1, 7, 4}, 6, {1, 1, 1, 1, 1, 1, 1}},
      {{8, 2, 33, 100}, 0, {10, 10}}, {{1, 1, 1, 0}, 0, {3}},
  };
  for (const Case& c : cases) {
    uint64_t n = 0;
    for (uint64_t pass : c.passes) n += pass;
    const Rope rope(plain_frequencies(c.rotary_dim, 10000));
    const std::vector<float> qkv =
        random_floats(n * (c.shape.heads + 2 * c.shape.kv_heads) * c.shape.head_dim, 7 + static_cast<unsigned>(n));
    const std::vector<double> expected = by_definition(c.shape, rope, qkv, n);
    const std::vector<float> out = in_passes(c, rope, qkv, 1);
    ASSERT_EQ(out.size(), expected.size());
    // Scores are float sums of head_dim terms of size about 1; the weights of a softmax sum to 1.
    for (size_t i = 0; i < out.size(); ++i)
      ASSERT_NEAR(out[i], expected[i], 2e-6 * (4 + static_cast<double>(c.shape.head_dim))) << i;
    EXPECT_EQ(in_passes(c, rope, qkv, 3), out) << "threads must not matter";
  }
}

}  // namespace
}  // namespace upg
