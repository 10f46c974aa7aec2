// Sessions, and requests that run together, on a device that gives candidates instead of logits.
#include <gtest/gtest.h>

#include "engine/engine_impl.h"
#include "model/test_util.h"
#include "ops/test_candidates.h"
#include "upg/scheduler.h"

namespace upg {
namespace {

using testing_util::demo_model;

struct Counts {
  int candidates = 0, fetched = 0;
};

// The cpu device's timeline, but for what it says of the next token.
class ListingTimeline final : public Timeline {
 public:
  ListingTimeline(std::unique_ptr<Timeline> timeline, Counts& counts)
      : timeline_(std::move(timeline)), counts_(counts) {}
  uint64_t capacity() const override { return timeline_->capacity(); }
  uint64_t length() const override { return timeline_->length(); }
  uint64_t set_length(uint64_t length) override { return timeline_->set_length(length); }
  uint64_t bytes_read_at(uint64_t position) const override { return timeline_->bytes_read_at(position); }
  uint64_t chunk() const override { return timeline_->chunk(); }
  void forward(std::span<const int32_t> tokens, LogitsRange range, float* logits) override {
    timeline_->forward(tokens, range, logits);
  }
  void forward_candidates(std::span<const int32_t> tokens, const CandidateRequest& request, Candidates& out) override {
    ++counts_.candidates;
    logits_.resize(request.vocab_size);
    forward(tokens, {tokens.size() - 1, tokens.size()}, logits_.data());
    out = testing_util::reference_candidates(logits_, request);
  }
  void fetch_logits(Candidates& out) override {
    ++counts_.fetched;
    out.logits = logits_;
  }
  std::vector<float> mean_hidden(std::span<const int32_t> tokens) override { return timeline_->mean_hidden(tokens); }
  void fill(uint64_t n) override { timeline_->fill(n); }

 private:
  std::unique_ptr<Timeline> timeline_;
  Counts& counts_;
  std::vector<float> logits_;
};

class ListingDevice final : public Device {
 public:
  ListingDevice(std::unique_ptr<Device> device, Counts& counts) : device_(std::move(device)), counts_(counts) {}
  std::string description() const override { return device_->description(); }
  std::unique_ptr<Timeline> timeline(uint64_t capacity, const KvType& kv, Activations activations) override {
    return std::make_unique<ListingTimeline>(device_->timeline(capacity, kv, activations), counts_);
  }
  void forward(std::span<const Work> work) override {
    for (const Work& w : work) {
      if (w.candidates) {
        w.timeline->forward_candidates(w.tokens, w.request, *w.candidates);
      } else {
        w.timeline->forward(w.tokens, w.range, w.logits);
      }
    }
  }
  double measure_bandwidth() override { return device_->measure_bandwidth(); }
  std::string_view bandwidth_kind() const override { return device_->bandwidth_kind(); }
  uint64_t memory_bytes() const override { return device_->memory_bytes(); }

 private:
  std::unique_ptr<Device> device_;
  Counts& counts_;
};

const std::pair<const char*, std::function<void(SamplingOptions&)>> kMixes[] = {
    {"greedy", [](auto& o) { o.temperature = 0; }},
    {"greedy with penalties", [](auto& o) { o.temperature = 0, o.repetition_penalty = 1.3f; }},
    {"plain", [](auto&) {}},
    {"flat", [](auto& o) { o.temperature = 2.5f; }},
    {"top_k", [](auto& o) { o.top_k = 20, o.repetition_penalty = 1.1f; }},
    {"top_p", [](auto& o) { o.top_p = 0.9f, o.temperature = 0.8f, o.presence_penalty = 0.5f; }},
    {"min_p", [](auto& o) { o.min_p = 0.1f, o.frequency_penalty = 0.7f; }},
    {"bias",
     [](auto& o) {
       o.top_k = 40, o.logit_bias = {{427, 4.0f}, {264, -INFINITY}};
     }},
};

TEST(SessionCandidates, GiveTheTextThatAllLogitsGive) {
  Counts counts;
  const auto whole = Engine::open(demo_model(), {2}), listing = Engine::open(demo_model(), {2});
  Engine::Impl& impl = listing->impl();
  impl.device = std::make_unique<ListingDevice>(std::move(impl.device), counts);

  const std::vector<int32_t> prompt = {427, 1574, 279};
  for (const auto& [name, set] : kMixes) {
    GenerateOptions options;
    set(options.sampling);
    options.max_tokens = 25;
    options.ignore_eos = true;
    counts = {};
    for (uint64_t seed : {1u, 2u}) {
      options.sampling.seed = seed;
      EXPECT_EQ(Session(listing).generate(prompt, options).tokens, Session(whole).generate(prompt, options).tokens)
          << name << ", seed " << seed;
    }
    EXPECT_EQ(counts.candidates, 48) << name << ": the prompt gives logits, and the last token is not fed";
    if (options.sampling.temperature > 1) {
      EXPECT_GT(counts.fetched, 0) << name << ": a flat distribution reaches further than any list";
    } else {
      EXPECT_LE(counts.fetched, 4) << name;
    }
  }
}

TEST(SessionCandidates, ASessionGoesOnWithLogitsAfterThem) {
  Counts counts;
  const auto listing = Engine::open(demo_model(), {2});
  Engine::Impl& impl = listing->impl();
  impl.device = std::make_unique<ListingDevice>(std::move(impl.device), counts);
  GenerateOptions options;
  options.max_tokens = 4;
  options.ignore_eos = true;
  Session session(listing), alone(Engine::open(demo_model(), {2}));
  const std::vector<int32_t> prompt = {427, 1574}, more = {279};
  session.generate(prompt, options);
  alone.generate(prompt, options);
  const std::span<const float> logits = session.feed(more), expected = alone.feed(more);
  EXPECT_EQ(std::vector<float>(logits.begin(), logits.end()), std::vector<float>(expected.begin(), expected.end()));
}

TEST(SessionCandidates, RequestsTogetherSayWhatTheySayWithAllLogits) {
  Counts counts;
  const auto whole = Engine::open(demo_model(), {2}), listing = Engine::open(demo_model(), {2});
  Engine::Impl& impl = listing->impl();
  impl.device = std::make_unique<ListingDevice>(std::move(impl.device), counts);
  std::vector<std::vector<int32_t>> tokens[2];
  std::vector<TokenLogprob> logprobs[2];
  for (const auto& engine : {whole, listing}) {
    const bool second = engine == listing;
    Scheduler scheduler(engine, {.parallel = 4, .session = {.context = 128}});
    std::vector<std::shared_ptr<Generation>> generations;
    for (const auto& [name, set] : kMixes) {
      GenerationRequest request;
      request.prompt = {427, 1574, 279};
      request.options.max_tokens = 25;
      request.options.ignore_eos = true;
      request.options.sampling.seed = 5;
      request.logprobs = generations.empty();  // which take all logits, among others that do not
      set(request.options.sampling);
      generations.push_back(scheduler.submit(request));
    }
    for (const auto& generation : generations) {
      while (const auto piece = generation->next(std::chrono::seconds(10)))
        logprobs[second].insert(logprobs[second].end(), piece->logprobs.begin(), piece->logprobs.end());
      tokens[second].push_back(generation->result().tokens);
    }
  }
  EXPECT_EQ(tokens[0], tokens[1]);
  EXPECT_EQ(logprobs[0].size(), 25u);
  EXPECT_EQ(logprobs[1].size(), 25u);
  EXPECT_EQ(counts.candidates, 25 * (std::size(kMixes) - 1));
  EXPECT_GT(counts.fetched, 0) << "a flat distribution reaches further than any list";
}

}  // namespace
}  // namespace upg
