// The sampler on candidates: the token that all logits give, or none.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "ops/test_candidates.h"
#include "text/sampler.h"

namespace upg {
namespace {

using namespace testing_util;

using Random = std::mt19937;

template <typename T>
T one_of(Random& random, std::initializer_list<T> values) {
  return *(values.begin() + random() % values.size());
}

SamplingOptions some_options(Random& random, uint64_t vocab) {
  SamplingOptions o;
  o.seed = random();
  o.temperature = one_of(random, {0.0f, 0.01f, 0.3f, 0.8f, 1.0f, 1.0f, 1.7f, 6.0f});
  o.top_k = one_of(random, {0u, 0u, 0u, 1u, 2u, 5u, 40u, 300u, 5000u});
  o.top_p = one_of(random, {1.0f, 1.0f, 0.95f, 0.5f, 0.999f});
  o.min_p = one_of(random, {0.0f, 0.0f, 0.05f, 1e-9f, 1.0f});
  o.repetition_penalty = one_of(random, {1.0f, 1.0f, 1.3f, 0.7f});
  o.presence_penalty = one_of(random, {0.0f, 0.0f, 0.6f, -0.5f});
  o.frequency_penalty = one_of(random, {0.0f, 0.0f, 0.4f, -0.2f});
  if (random() % 3 == 0)
    for (int i = 0; i < 4; ++i)
      o.logit_bias[static_cast<int32_t>(random() % vocab)] = one_of(random, {-INFINITY, -2.0f, 0.5f, 30.0f});
  return o;
}

class SamplerCandidates : public ::testing::Test {
 protected:
  // Runs generations of ten tokens; `change` makes of the reference's candidates what a device may give as well.
  // Returns the share of tokens for which the candidates were enough.
  double run(const LogitsKind& kind, uint64_t vocab, int generations, const std::function<SamplingOptions()>& options,
             const std::function<void(Candidates&, const CandidateRequest&)>& change = {}) {
    std::normal_distribution<float> normal;
    std::vector<float> logits(vocab);
    int decided = 0;
    for (int g = 0; g < generations; ++g) {
      const SamplingOptions o = options();
      Sampler whole(o, vocab), listed(o, vocab);
      for (int i = 0; i < 5; ++i) {
        const auto token = static_cast<int32_t>(random_() % vocab);
        whole.saw(token);
        listed.saw(token);
      }
      for (int i = 0; i < 10; ++i) {
        for (float& logit : logits) logit = kind.logit(random_, normal);
        const CandidateRequest request = listed.request();
        Candidates candidates = reference_candidates(logits, request);
        if (change) change(candidates, request);
        std::optional<int32_t> token = listed.next(candidates);
        decided += token.has_value();
        if (!token) token = listed.next(logits);
        const int32_t expected = whole.next(logits);
        if (*token == expected) continue;
        ADD_FAILURE() << kind.name << ", vocabulary " << vocab << ", generation " << g << ", token " << i << ": "
                      << *token << " instead of " << expected << "; temperature " << o.temperature << ", top_k "
                      << o.top_k << ", top_p " << o.top_p << ", min_p " << o.min_p;
        return 0;
      }
    }
    return decided / (10.0 * generations);
  }
  Random random_{5};
};

TEST_F(SamplerCandidates, GiveTheTokenThatAllLogitsGive) {
  for (uint64_t vocab : {1u, 2u, 7u, 100u, 3000u})
    for (const LogitsKind& kind : kLogitsKinds) {
      const double decided = run(kind, vocab, vocab < 1000 ? 300 : 40, [&] { return some_options(random_, vocab); });
      EXPECT_GT(decided, vocab >= 100 ? 0.3 : 0) << kind.name << " " << vocab;
    }
}

// Longer or shorter, in another order, with a total that is off by what it may be.
TEST_F(SamplerCandidates, MayBeListedInAnyWay) {
  for (uint64_t vocab : {7u, 100u, 3000u})
    for (const LogitsKind& kind : kLogitsKinds)
      run(
          kind, vocab, vocab < 1000 ? 300 : 40, [&] { return some_options(random_, vocab); },
          [&](Candidates& c, const CandidateRequest& request) {
            c.total *= 1 + one_of(random_, {-0.9, 0.0, 0.9}) * total_error(request.vocab_size);
            c.likeliest.resize(c.likeliest.size() / one_of(random_, {1u, 1u, 2u, 20u}));
            std::shuffle(c.likeliest.begin(), c.likeliest.end(), random_);
          });
}

TEST_F(SamplerCandidates, OfLogitsWithoutAnOrderDecideNothing) {
  for (const LogitsKind& kind : kUnorderedKinds)
    EXPECT_EQ(run(kind, 300, 20, [&] { return some_options(random_, 300); }), 0) << kind.name;
}

// What the device saves: with options as they are used it hardly ever has to give all logits.
TEST_F(SamplerCandidates, AreNearlyAlwaysEnough) {
  const auto share = [&](const std::function<void(SamplingOptions&)>& set) {
    return run(kLogitsKinds[1], 10000, 12, [&] {
      SamplingOptions o;
      o.seed = random_();
      set(o);
      return o;
    });
  };
  EXPECT_EQ(share([](auto& o) { o.temperature = 0; }), 1);
  EXPECT_EQ(share([](auto& o) { o.temperature = 0, o.repetition_penalty = 1.2f; }), 1);
  EXPECT_EQ(share([](auto& o) { o.top_k = 40; }), 1);
  EXPECT_EQ(share([](auto& o) { o.top_k = 40, o.top_p = 0.9f, o.repetition_penalty = 1.1f; }), 1);
  EXPECT_EQ(share([](auto& o) { o.top_p = 0.95f; }), 1);
  EXPECT_EQ(share([](auto& o) { o.min_p = 0.05f, o.frequency_penalty = 0.5f; }), 1);
  EXPECT_GT(share([](auto&) {}), 0.9);
}

TEST(SamplerCandidatesAlone, ATokenThatIsRaisedOrLoweredFindsItsPlace) {
  const std::vector<float> logits = {5, 4, 3, 2, 1};
  const auto chosen = [&](std::map<int32_t, float> bias) {
    SamplingOptions o;
    o.temperature = 0;
    o.logit_bias = std::move(bias);
    Sampler sampler(o, logits.size());
    return sampler.next(reference_candidates(logits, sampler.request()));
  };
  EXPECT_EQ(chosen({{4, 4.5f}}), 4) << "into the candidates";
  EXPECT_EQ(chosen({{0, -1.5f}}), 1) << "out of them";
  EXPECT_EQ(chosen({{0, -1.0f}}), 0) << "equals: the lower id";
  EXPECT_EQ(chosen({{1, 1.0f}}), 0);
  EXPECT_EQ(chosen({{3, INFINITY}}), std::nullopt);
  EXPECT_EQ(chosen({{0, -INFINITY}}), 1);
}

// The second of two equals is cut off if, and only if, the first has reached half of the total.
TEST(SamplerCandidatesAlone, WhatTheTotalsRoundingDecidesIsLeftToAllLogits) {
  SamplingOptions o;
  o.top_p = 0.5f;
  Sampler sampler(o, 2);
  Candidates c = reference_candidates(std::vector<float>{0, 0}, sampler.request());
  EXPECT_EQ(c.total, 2);
  EXPECT_EQ(sampler.next(c), std::nullopt);
  c.total = 2 * (1 - 1.5 * total_error(2));
  EXPECT_EQ(sampler.next(c), 0);
}

}  // namespace
}  // namespace upg
