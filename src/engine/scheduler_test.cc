// Requests that run together: the same text as alone, nothing read twice, turns, limits and ends.
#include "upg/scheduler.h"

#include <cmath>
#include <thread>

#include "engine/engine_impl.h"
#include "model/test_util.h"
#include "upg/compress.h"
#include "upg/grammar.h"

namespace upg {
namespace {

using namespace testing_util;
using namespace std::chrono_literals;
using ::testing::HasSubstr;

class SchedulerTest : public TemporaryFolderTest {
 protected:
  static std::shared_ptr<Engine> engine() {
    static const std::shared_ptr<Engine> demo = Engine::open(demo_model(), {.threads = 2});
    return demo;
  }
  static GenerationRequest request(const std::string& prompt, uint64_t n, float temperature = 0, uint64_t seed = 0) {
    GenerationRequest r;
    r.prompt = engine()->tokenize(prompt);
    r.options.max_tokens = n;
    r.options.ignore_eos = true;
    r.options.sampling.temperature = temperature;
    r.options.sampling.seed = seed;
    return r;
  }
};

std::string text_of(Generation& generation) {
  std::string text;
  while (const auto piece = generation.next(10s)) text += piece->text;
  return text;
}

const char* const kPrompts[] = {"The river rose in the night, and by the morning",
                                "A prime number is",
                                "Once upon a time there was a king who",
                                "In the year 1815",
                                "She said:",
                                "The"};

TEST_F(SchedulerTest, TextIsTheSameAloneAndAmongOthers) {
  CompressOptions options;
  options.calibrate = "none";
  compress(demo_model(), path("demo.upg"), options);
  for (const std::string& model : {demo_model(), path("demo.upg")}) {
    const auto one = Engine::open(model, {.threads = 2});
    std::vector<std::string> alone, together;
    {
      Scheduler scheduler(one, {.parallel = 1, .session = {.context = 256}});
      for (const char* prompt : kPrompts) alone.push_back(text_of(*scheduler.submit(request(prompt, 20, 0.8f, 7))));
    }
    Scheduler scheduler(one, {.parallel = 4, .session = {.context = 256}});
    std::vector<std::shared_ptr<Generation>> generations;
    for (const char* prompt : kPrompts) generations.push_back(scheduler.submit(request(prompt, 20, 0.8f, 7)));
    for (auto& g : generations) together.push_back(text_of(*g));
    EXPECT_EQ(together, alone) << model;
    EXPECT_TRUE(scheduler.drain(30s));
    EXPECT_EQ(scheduler.statistics().generated_tokens, 20u * std::size(kPrompts));
    EXPECT_EQ(scheduler.statistics().running, 0u);
  }
}

TEST_F(SchedulerTest, ASessionSaysTheSame) {
  const auto one = Engine::open(demo_model(), {.threads = 1});
  const GenerationRequest r = request(kPrompts[0], 24);
  Session session(one, {.context = 128});
  const std::string expected = session.generate(r.prompt, r.options).text;
  Scheduler scheduler(one, {.parallel = 2, .session = {.context = 128}});
  const auto generation = scheduler.submit(r);
  EXPECT_EQ(text_of(*generation), expected);
  EXPECT_EQ(generation->result().text, expected);
  EXPECT_EQ(generation->result().finish, FinishReason::kLength);
  EXPECT_EQ(generation->result().tokens.size(), 24u);
}

TEST_F(SchedulerTest, WhatAPromptSharesWithAnEarlierOneIsNotReadAgain) {
  Scheduler scheduler(engine(), {.parallel = 3, .session = {.context = 256}});
  std::string long_prompt;
  for (int i = 0; i < 6; ++i) long_prompt += "The river rose in the night, and the lower fields were under water. ";
  const auto first = scheduler.submit(request(long_prompt, 8));
  const std::string answer = text_of(*first);
  EXPECT_EQ(first->cached_tokens(), 0u);

  // The next turn: what was said before, and more.
  GenerationRequest more = request(long_prompt, 4);
  more.prompt.insert(more.prompt.end(), first->result().tokens.begin(), first->result().tokens.end());
  const auto tail = engine()->tokenize(" And then");
  more.prompt.insert(more.prompt.end(), tail.begin(), tail.end());
  const auto second = scheduler.submit(more);
  const std::string reused = text_of(*second);
  EXPECT_EQ(second->cached_tokens(), more.prompt.size() - tail.size() - 1) << "the last token was never run";

  // Others that begin alike copy the beginning, and leave its owner alone.
  const auto a = scheduler.submit(request(long_prompt + "Nobody", 6)),
             b = scheduler.submit(request(long_prompt + "All", 6));
  const std::string said_a = text_of(*a), said_b = text_of(*b);
  EXPECT_GE(a->cached_tokens(), 60u);
  EXPECT_GE(b->cached_tokens(), 60u);

  Scheduler fresh(Engine::open(demo_model(), {.threads = 2}), {.parallel = 1, .session = {.context = 256}});
  EXPECT_EQ(text_of(*fresh.submit(request(long_prompt + "Nobody", 6))), said_a);
  EXPECT_EQ(text_of(*fresh.submit(request(long_prompt + "All", 6))), said_b);
  EXPECT_EQ(text_of(*fresh.submit(more)), reused);
}

TEST_F(SchedulerTest, ACancelledRequestLeavesAtOnce) {
  Scheduler scheduler(engine(), {.parallel = 1, .session = {.context = 1024}});
  auto endless = scheduler.submit(request(kPrompts[0], 1000));
  auto waiting = scheduler.submit(request(kPrompts[1], 1000));
  ASSERT_TRUE(endless->next(10s));
  waiting->cancel();
  EXPECT_EQ(text_of(*waiting), "");
  EXPECT_EQ(waiting->result().finish, FinishReason::kCancelled);
  endless.reset();  // a reader that goes away cancels
  const auto last = scheduler.submit(request(kPrompts[2], 3));
  EXPECT_NE(text_of(*last), "");
  EXPECT_EQ(scheduler.statistics().cancelled, 2u);
}

TEST_F(SchedulerTest, AFullQueueAndADrainRefuse) {
  Scheduler scheduler(engine(), {.parallel = 1, .session = {.context = 512}, .queue = 2});
  std::vector<std::shared_ptr<Generation>> taken = {scheduler.submit(request(kPrompts[0], 400))};
  ASSERT_TRUE(taken[0]->next(10s));
  for (int i = 0; i < 2; ++i) taken.push_back(scheduler.submit(request(kPrompts[1], 2)));
  ErrorCode code{};
  EXPECT_THAT(error_of([&] { scheduler.submit(request(kPrompts[2], 2)); }, &code).value(),
              HasSubstr("2 requests are waiting"));
  EXPECT_EQ(code, ErrorCode::kBusy);
  EXPECT_EQ(scheduler.statistics().waiting, 2u);
  EXPECT_FALSE(scheduler.drain(1ms));
  EXPECT_TRUE(error_of([&] { scheduler.submit(request(kPrompts[2], 2)); }, &code));
  taken[0]->cancel();
  EXPECT_TRUE(scheduler.drain(30s));
  EXPECT_NE(text_of(*taken[2]), "");
}

TEST_F(SchedulerTest, WhoWaitsInVainIsRefusedInTime) {
  Scheduler scheduler(engine(), {.parallel = 1, .session = {.context = 1024}, .queue_time = 0s});
  const auto first = scheduler.submit(request(kPrompts[0], 1000));
  while (!first->wait_begun(10s)) continue;
  const auto second = scheduler.submit(request(kPrompts[1], 2));
  ErrorCode code{};
  EXPECT_THAT(error_of([&] { second->wait_begun(10s); }, &code).value(), HasSubstr("try again in 1 s"));
  EXPECT_EQ(code, ErrorCode::kBusy);
  EXPECT_EQ(scheduler.statistics().overloaded, 1u);
  // From now on nothing waits: refused at once.
  try {
    scheduler.submit(request(kPrompts[2], 2));
    FAIL() << "there is no place";
  } catch (const BusyError& busy) {
    EXPECT_EQ(busy.retry_after(), 1s);
    EXPECT_THAT(busy.what(), HasSubstr("all 1 places are taken"));
  }
  EXPECT_EQ(scheduler.statistics().refused, 2u);
  first->cancel();
  EXPECT_TRUE(scheduler.drain(30s));
  EXPECT_FALSE(first->next(1s)->tokens.empty());
}

TEST_F(SchedulerTest, MoreOfTheSameCallerIsRefusedWithoutBeingOverload) {
  Scheduler scheduler(engine(), {.parallel = 1, .session = {.context = 1024}, .queue = 0});
  const auto first = scheduler.submit(request(kPrompts[0], 1000));
  GenerationRequest more = request(kPrompts[1], 2);
  more.more = true;
  EXPECT_TRUE(error_of([&] { scheduler.submit(more); }));
  EXPECT_EQ(scheduler.statistics().overloaded, 0u);
  EXPECT_EQ(scheduler.statistics().refused, 0u);
}

TEST_F(SchedulerTest, ClientsTakeTurns) {
  Scheduler scheduler(engine(), {.parallel = 1, .session = {.context = 512}});
  auto hold = scheduler.submit(request(kPrompts[0], 400));
  ASSERT_TRUE(hold->next(10s));
  std::vector<std::shared_ptr<Generation>> greedy;
  for (int i = 0; i < 5; ++i) {
    GenerationRequest r = request(kPrompts[1], 50);
    r.client = "greedy";
    greedy.push_back(scheduler.submit(r));
  }
  GenerationRequest r = request(kPrompts[2], 1);
  r.client = "modest";
  const auto modest = scheduler.submit(r);
  hold->cancel();
  text_of(*modest);
  EXPECT_EQ(greedy.back()->next(0ms)->tokens.size(), 0u)
      << "five requests of one client do not come before one of another";
}

TEST_F(SchedulerTest, LogprobsAreThoseOfTheLogits) {
  Scheduler scheduler(engine(), {.parallel = 2, .session = {.context = 256}});
  GenerationRequest r = request(kPrompts[0], 5);
  r.logprobs = r.prompt_logprobs = true;
  r.top_logprobs = 3;
  const auto generation = scheduler.submit(r);
  std::vector<TokenLogprob> all;
  std::vector<int32_t> tokens = r.prompt;
  while (const auto piece = generation->next(10s)) {
    all.insert(all.end(), piece->prompt_logprobs.begin(), piece->prompt_logprobs.end());
    all.insert(all.end(), piece->logprobs.begin(), piece->logprobs.end());
    tokens.insert(tokens.end(), piece->tokens.begin(), piece->tokens.end());
  }
  ASSERT_EQ(all.size(), tokens.size() - 1);
  Runner runner(demo_model(), 1, "f16", 256);
  const std::vector<float> logits = runner.feed_whole(tokens);
  for (size_t i = 0; i < all.size(); ++i) {
    const std::span<const float> row(logits.data() + i * runner.vocab(), runner.vocab());
    double sum = 0;
    for (float x : row) sum += std::exp(static_cast<double>(x));
    EXPECT_EQ(all[i].token, tokens[i + 1]);
    EXPECT_NEAR(all[i].logprob, row[static_cast<size_t>(tokens[i + 1])] - std::log(sum), 2e-2) << i;
    ASSERT_EQ(all[i].top.size(), 3u);
    EXPECT_GE(all[i].top[0].second, all[i].top[1].second);
    EXPECT_GE(all[i].top[0].second, all[i].logprob);
  }
}

TEST_F(SchedulerTest, AGrammarDecidesWhatMayBeSaid) {
  if (!grammars_missing().empty()) GTEST_SKIP() << grammars_missing();
  GenerationRequest r = request(kPrompts[0], 20, 1.0f, 3);
  r.options.grammar = Grammar::compile(
      *engine(), GrammarSource::choice({GrammarSource::literal(" never again"), GrammarSource::literal(" once more")}));
  r.logprobs = true;
  Scheduler scheduler(engine(), {.parallel = 2, .session = {.context = 128}});
  std::set<std::string> said;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    r.options.sampling.seed = seed;
    const auto first = scheduler.submit(r), second = scheduler.submit(r);
    const std::string text = text_of(*first);
    EXPECT_EQ(text_of(*second), text) << "each has its own place in the grammar, and a seed decides";
    EXPECT_EQ(first->result().finish, FinishReason::kStop);
    said.insert(text);
  }
  EXPECT_EQ(said, (std::set<std::string>{" never again", " once more"}));
}

TEST_F(SchedulerTest, EmbeddingsAreMeansOfHiddenStates) {
  Scheduler scheduler(engine(), {.parallel = 1, .session = {.context = 128}});
  const auto ids = engine()->tokenize(kPrompts[0]);
  const std::vector<float> mean = scheduler.embed(ids);
  ASSERT_EQ(mean.size(), engine()->impl().model->shape().hidden_size);
  const std::vector<float> one = scheduler.embed(std::span(ids).first(1));
  EXPECT_NE(one, mean);
  EXPECT_EQ(scheduler.embed(ids), mean);
}

TEST_F(SchedulerTest, PromptsThatCannotRunAreRefused) {
  Scheduler scheduler(engine(), {.parallel = 1, .session = {.context = 32}});
  GenerationRequest r = request("a", 1);
  r.prompt.assign(33, 5);
  EXPECT_THAT(error_of([&] { scheduler.submit(r); }).value(), HasSubstr("33 tokens and the context holds 32"));
  r.prompt.assign(32, 5);
  EXPECT_EQ(scheduler.submit(r)->next(10s)->tokens.size(), 1u) << "a prompt that fills the context has one answer";
  r.prompt = {-1};
  EXPECT_TRUE(error_of([&] { scheduler.submit(r); }));
  r.prompt = {};
  EXPECT_TRUE(error_of([&] { scheduler.submit(r); }));
  r = request("a", 1);
  r.options.sampling.top_p = 2;
  EXPECT_THAT(error_of([&] { scheduler.submit(r); }).value(), HasSubstr("top_p"));
}

TEST_F(SchedulerTest, ManyThreadsMaySubmit) {
  Scheduler scheduler(engine(), {.parallel = 4, .session = {.context = 128}});
  std::vector<std::string> said(8);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < said.size(); ++i)
    threads.emplace_back([&, i] {
      for (int k = 0; k < 3; ++k) said[i] = text_of(*scheduler.submit(request(kPrompts[i % 4], 5)));
    });
  for (auto& thread : threads) thread.join();
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(said[i], said[i + 4]);
  EXPECT_EQ(scheduler.statistics().requests, 24u);
}

}  // namespace
}  // namespace upg
