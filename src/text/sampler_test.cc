// The sampler: which tokens may come, how often, and which options are refused.
#include "text/sampler.h"

#include <cmath>
#include <set>

#include "format/test_util.h"

namespace upg {
namespace {

using ::testing::HasSubstr;
using testing_util::error_of;

SamplingOptions options_with(const std::function<void(SamplingOptions&)>& set) {
  SamplingOptions options;
  set(options);
  return options;
}

// How often each token comes in `n` draws, each by a sampler with no history.
std::vector<int> draw(SamplingOptions options, const std::vector<float>& logits, int n) {
  std::vector<int> counts(logits.size());
  for (int i = 0; i < n; ++i) {
    options.seed = static_cast<uint64_t>(i) * 7919;
    ++counts[static_cast<size_t>(Sampler(options, logits.size()).next(logits))];
  }
  return counts;
}

std::set<int32_t> possible(const SamplingOptions& options, const std::vector<float>& logits) {
  std::set<int32_t> tokens;
  const std::vector<int> counts = draw(options, logits, 3000);
  for (size_t i = 0; i < counts.size(); ++i)
    if (counts[i] > 0) tokens.insert(static_cast<int32_t>(i));
  return tokens;
}

std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

const std::vector<float> kLogits = logits_of({0.1, 0.5, 0.15, 0.05, 0.2});

TEST(Sampler, TemperatureZeroTakesTheLikeliestAndTiesGoToTheLowerId) {
  Sampler greedy(options_with([](auto& o) { o.temperature = 0; }), 5);
  EXPECT_EQ(greedy.next(kLogits), 1);
  EXPECT_EQ(greedy.next(std::vector<float>{1, 3, 3, 2, 3}), 1);
  EXPECT_EQ(greedy.next(std::vector<float>(5, -2.0f)), 0);
}

TEST(Sampler, TokensComeAsOftenAsTheirProbabilityAtTheTemperature) {
  constexpr int kDraws = 20000;
  for (float temperature : {0.5f, 1.0f, 2.0f}) {
    const std::vector<int> counts = draw(options_with([&](auto& o) { o.temperature = temperature; }), kLogits, kDraws);
    double total = 0;
    for (float logit : kLogits) total += std::exp(logit / temperature);
    for (size_t i = 0; i < counts.size(); ++i) {
      const double p = std::exp(kLogits[i] / temperature) / total;
      EXPECT_NEAR(counts[i], kDraws * p, 4.5 * std::sqrt(kDraws * p * (1 - p))) << temperature << " " << i;
    }
  }
}

TEST(Sampler, ALargeVocabularyIsDrawnFromAsASmallOneIs) {
  // 2,000 equals: every token comes, and about as often from each hundred.
  const std::vector<int> counts = draw({}, std::vector<float>(2000, 0.5f), 20000);
  for (size_t begin = 0; begin < counts.size(); begin += 100) {
    int hundred = 0;
    for (size_t i = begin; i < begin + 100; ++i) hundred += counts[i];
    EXPECT_NEAR(hundred, 1000, 150) << begin;
  }
  const std::vector<float> equal(2000, 0.5f);
  for (int32_t token : possible(options_with([](auto& o) { o.top_p = 0.25f; }), equal)) EXPECT_LT(token, 500);
}

TEST(Sampler, AsksForWhatTheChoiceNeeds) {
  const auto request = [](const std::function<void(SamplingOptions&)>& set, std::vector<int32_t> prompt = {}) {
    Sampler sampler(options_with(set), 5000);
    for (int32_t token : prompt) sampler.saw(token);
    const CandidateRequest r = sampler.request();
    EXPECT_EQ(r.vocab_size, 5000u);
    return std::tuple(r.count, r.temperature, std::set<int32_t>(r.apart.begin(), r.apart.end()), r.likeliest_alone());
  };
  const std::set<int32_t> none;
  EXPECT_EQ(request([](auto& o) { o.temperature = 0; }, {3}), std::tuple(1u, 0.0f, none, true));
  EXPECT_EQ(request([](auto& o) { o.top_k = 1; }, {3}), std::tuple(1u, 0.0f, none, true));
  EXPECT_EQ(request([](auto& o) { o.temperature = 0, o.repetition_penalty = 1.1f; }, {3, 3, 9}),
            std::tuple(1u, 0.0f, std::set<int32_t>({3, 9}), false));
  EXPECT_EQ(request([](auto& o) { o.temperature = 0, o.presence_penalty = 1; }, {3}), std::tuple(1u, 0.0f, none, true))
      << "nothing was generated yet";
  EXPECT_EQ(request(
                [](auto& o) {
                  o.temperature = 0, o.logit_bias = {{1, 2.0f}};
                },
                {3}),
            std::tuple(1u, 0.0f, std::set<int32_t>({1}), false));
  EXPECT_EQ(request([](auto& o) { o.top_k = 40, o.top_p = 0.5f; }), std::tuple(40u, 0.0f, none, false));
  const auto [count, temperature, apart, alone] = request([](auto& o) { o.temperature = 0.5f, o.top_k = 5000; });
  EXPECT_GT(count, 1000u);
  EXPECT_EQ(temperature, 0.5f) << "all tokens can be drawn";
}

TEST(Sampler, OneSeedGivesOneSequenceAndOthersGiveOthers) {
  auto sequence = [](uint64_t seed) {
    Sampler sampler(options_with([&](auto& o) { o.seed = seed; }), 5);
    std::vector<int32_t> tokens;
    for (int i = 0; i < 40; ++i) tokens.push_back(sampler.next(kLogits));
    return tokens;
  };
  EXPECT_EQ(sequence(3), sequence(3));
  EXPECT_NE(sequence(3), sequence(4));
  EXPECT_NE(sequence(0), sequence(1));
}

TEST(Sampler, TopKKeepsTheLikeliestAndTheLowerIdOfEquals) {
  auto top = [](uint32_t k, const std::vector<float>& logits) {
    return possible(options_with([&](auto& o) { o.top_k = k; }), logits);
  };
  EXPECT_EQ(top(1, kLogits), (std::set<int32_t>{1}));
  EXPECT_EQ(top(2, kLogits), (std::set<int32_t>{1, 4}));
  EXPECT_EQ(top(5, kLogits).size(), 5u);
  EXPECT_EQ(top(0, kLogits).size(), 5u);
  EXPECT_EQ(top(UINT32_MAX, kLogits).size(), 5u);
  EXPECT_EQ(top(2, {1, 1, 1, 1}), (std::set<int32_t>{0, 1}));
}

TEST(Sampler, TopPKeepsTheFewestThatReachTheProbability) {
  auto top = [](float p) { return possible(options_with([&](auto& o) { o.top_p = p; }), kLogits); };
  EXPECT_EQ(top(1e-6f), (std::set<int32_t>{1}));
  EXPECT_EQ(top(0.49f), (std::set<int32_t>{1}));
  EXPECT_EQ(top(0.6f), (std::set<int32_t>{1, 4}));
  EXPECT_EQ(top(0.69f), (std::set<int32_t>{1, 4}));
  EXPECT_EQ(top(0.75f), (std::set<int32_t>{1, 2, 4}));
  EXPECT_EQ(top(1.0f).size(), 5u);
}

TEST(Sampler, TopPCountsWhatTopKLeft) {
  // Of tokens 1, 4 and 2, 0.85 in all, the first two reach 0.8 of it.
  EXPECT_EQ(possible(options_with([](auto& o) { o.top_k = 3, o.top_p = 0.8f; }), kLogits), (std::set<int32_t>{1, 4}));
}

TEST(Sampler, MinPDropsWhatIsBelowAShareOfTheLikeliest) {
  auto above = [](float p) { return possible(options_with([&](auto& o) { o.min_p = p; }), kLogits); };
  EXPECT_EQ(above(0.0f).size(), 5u);
  EXPECT_EQ(above(0.15f), (std::set<int32_t>{0, 1, 2, 4}));
  EXPECT_EQ(above(0.35f), (std::set<int32_t>{1, 4}));
  EXPECT_EQ(above(1.0f), (std::set<int32_t>{1}));
}

TEST(Sampler, LogitBiasRaisesLowersAndForbids) {
  auto greedy = [](std::map<int32_t, float> bias) {
    Sampler sampler(options_with([&](auto& o) { o.temperature = 0, o.logit_bias = std::move(bias); }), 5);
    return sampler.next(kLogits);
  };
  EXPECT_EQ(greedy({{3, 10.0f}}), 3);
  EXPECT_EQ(greedy({{1, -10.0f}}), 4);
  EXPECT_EQ(greedy({{1, -INFINITY}, {4, -INFINITY}}), 2);
  EXPECT_EQ(possible(options_with([](auto& o) {
                       o.logit_bias = {{1, -INFINITY}};
                     }),
                     kLogits),
            (std::set<int32_t>{0, 2, 3, 4}));
}

TEST(Sampler, RepetitionPenaltyCountsThePromptToo) {
  Sampler sampler(options_with([](auto& o) { o.temperature = 0, o.repetition_penalty = 2; }), 4);
  sampler.saw(0);
  EXPECT_EQ(sampler.next(std::vector<float>{3, 2, 0, -1}), 1) << "3 / 2 is less than 2";
  EXPECT_EQ(sampler.next(std::vector<float>{3, 2, 1.6f, -1}), 2) << "now 1 counts as seen as well";
  EXPECT_EQ(sampler.next(std::vector<float>{-3, -3, -3, -5}), 3) << "below zero it multiplies: -6 each";
}

TEST(Sampler, PresenceAndFrequencyCountGeneratedTokensOnly) {
  Sampler presence(options_with([](auto& o) { o.temperature = 0, o.presence_penalty = 1; }), 2);
  presence.saw(0);
  const std::vector<float> near = {1.0f, 0.5f};
  EXPECT_EQ(presence.next(near), 0);
  EXPECT_EQ(presence.next(near), 1);
  EXPECT_EQ(presence.next(near), 0) << "both are present now; how often does not matter";
  EXPECT_EQ(presence.next(near), 0);

  Sampler frequency(options_with([](auto& o) { o.temperature = 0, o.frequency_penalty = 0.4f; }), 2);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 6; ++i) tokens.push_back(frequency.next(near));
  EXPECT_EQ(tokens, (std::vector<int32_t>{0, 0, 1, 0, 1, 0}));
}

TEST(Sampler, LogitsWithoutAnOrderStillGiveAToken) {
  for (float temperature : {0.0f, 1.0f})
    for (float x : {NAN, INFINITY, -INFINITY}) {
      Sampler sampler(options_with([&](auto& o) { o.temperature = temperature, o.top_k = 40; }), 100);
      for (int i = 0; i < 10; ++i) {
        const int32_t token = sampler.next(std::vector<float>(100, x));
        EXPECT_GE(token, 0);
        EXPECT_LT(token, 100);
      }
    }
}

TEST(Sampler, OptionsOutOfRangeAreRefusedByName) {
  const std::pair<const char*, std::function<void(SamplingOptions&)>> wrong[] = {
      {"temperature is -1", [](auto& o) { o.temperature = -1; }},
      {"temperature is nan", [](auto& o) { o.temperature = NAN; }},
      {"temperature is inf", [](auto& o) { o.temperature = INFINITY; }},
      {"top_p is 0", [](auto& o) { o.top_p = 0; }},
      {"top_p is 1.5", [](auto& o) { o.top_p = 1.5f; }},
      {"top_p is nan", [](auto& o) { o.top_p = NAN; }},
      {"min_p is -0.5", [](auto& o) { o.min_p = -0.5f; }},
      {"min_p is 2", [](auto& o) { o.min_p = 2; }},
      {"repetition_penalty is 0", [](auto& o) { o.repetition_penalty = 0; }},
      {"repetition_penalty is inf", [](auto& o) { o.repetition_penalty = INFINITY; }},
      {"presence_penalty is nan", [](auto& o) { o.presence_penalty = NAN; }},
      {"frequency_penalty is inf", [](auto& o) { o.frequency_penalty = INFINITY; }},
      {"logit_bias token is 5",
       [](auto& o) {
         o.logit_bias = {{5, 1.0f}};
       }},
      {"logit_bias token is -1",
       [](auto& o) {
         o.logit_bias = {{-1, 1.0f}};
       }},
      {"logit_bias is nan",
       [](auto& o) {
         o.logit_bias = {{0, NAN}};
       }},
  };
  for (const auto& [message, set] : wrong) {
    const SamplingOptions options = options_with(set);
    ErrorCode code{};
    const auto refusal = error_of([&] { Sampler(options, 5); }, &code);
    ASSERT_TRUE(refusal) << message;
    EXPECT_EQ(code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(*refusal, HasSubstr(message));
  }
}

}  // namespace
}  // namespace upg
