// Candidates found on the GPU against their definition, and the tokens drawn from them against those of all logits.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "cuda/cuda_device.h"
#include "cuda/first_gpu.h"
#include "cuda/sample_runner.h"
#include "format/test_util.h"
#include "model/test_util.h"
#include "ops/test_candidates.h"
#include "text/sampler.h"
#include "upg/compress.h"

namespace upg::cuda {
namespace {

using namespace testing_util;

Candidates find(SampleRunner& runner, const std::vector<float>& logits, const CandidateRequest& request) {
  const auto device = upload(logits.data(), logits.size(), "logits");
  Candidates out;
  const SampleRunner::Row row = {request, device.get(), &out};
  runner.enqueue(std::span(&row, 1), nullptr);
  check(cudaStreamSynchronize(nullptr), "sampling");
  runner.read();
  std::sort(out.likeliest.begin(), out.likeliest.end(), likelier);
  return out;
}

bool same(const std::vector<TokenLogit>& a, const std::vector<TokenLogit>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const TokenLogit& x, const TokenLogit& y) {
    return x.token == y.token && (x.logit == y.logit || (std::isnan(x.logit) && std::isnan(y.logit)));
  });
}

// `found` is a beginning of all that there are; whether it is long enough is the caller's question.
void expect_right(const Candidates& found, std::span<const float> logits, CandidateRequest request,
                  const std::string& label) {
  request.count = request.vocab_size;
  const Candidates all = reference_candidates(logits, request);
  EXPECT_TRUE(found.logits.empty()) << label;
  EXPECT_TRUE(same(found.apart, all.apart)) << label;
  ASSERT_LE(found.likeliest.size(), all.likeliest.size()) << label;
  const auto end = all.likeliest.begin() + static_cast<ptrdiff_t>(found.likeliest.size());
  EXPECT_TRUE(same(found.likeliest, {all.likeliest.begin(), end})) << label;
  if (found.likeliest.empty()) return;
  EXPECT_EQ(found.top, all.top) << label;
  EXPECT_LE(std::abs(found.total - all.total), total_error(request.vocab_size) * all.total) << label;
}

// Some tokens of a vocabulary, in any order.
std::vector<int32_t> some_tokens(std::mt19937& random, uint64_t vocab) {
  std::vector<int32_t> tokens;
  if (random() % 2) return tokens;
  for (uint64_t i = 0; i < vocab && tokens.size() < SampleRunner::kMostApart; ++i)
    if (random() % 7 == 0) tokens.push_back(static_cast<int32_t>(i));
  std::shuffle(tokens.begin(), tokens.end(), random);
  return tokens;
}

TEST(Sample, FindsTheLikeliestOfAnyLogits) {
  if (!has_gpu()) GTEST_SKIP() << "no CUDA device was found";
  SampleRunner runner(1);
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (uint64_t vocab : {1u, 2u, 31u, 333u, 4097u, 50257u, 100352u, 250001u, 1u << 20})
    for (const LogitsKind& kind : kLogitsKinds) {
      std::vector<float> logits(vocab);
      for (float& logit : logits) logit = kind.logit(random, normal);
      for (uint64_t count : {1u, 2u, 40u, 2048u, 4096u}) {
        if (vocab > 200000 && count != 40 && count != 2048) continue;
        const std::vector<int32_t> apart = some_tokens(random, vocab);
        const CandidateRequest request = {vocab, std::min(count, vocab), random() % 3 ? 0.7f : 0.0f, apart};
        const std::string label = fmt::format("{}, {} of {}, {} apart", kind.name, count, vocab, apart.size());
        const Candidates found = find(runner, logits, request), again = find(runner, logits, request);
        expect_right(found, logits, request, label);
        EXPECT_TRUE(same(found.likeliest, again.likeliest)) << label;
        EXPECT_EQ(found.total, again.total) << label;
        // Only equals, or what looks alike by its highest bits, may be too many to be listed.
        const std::string name = kind.name;
        if (name == "normal" || name == "huge" || name == "forbidden" || vocab <= 256) {
          EXPECT_GE(found.likeliest.size(), reference_candidates(logits, request).likeliest.size()) << label;
        }
        if (name == "equal" && vocab > 10000) {
          EXPECT_TRUE(found.likeliest.empty()) << label;
        }
      }
    }
}

TEST(Sample, FindsInRowsTogetherWhatItFindsInEach) {
  if (!has_gpu()) GTEST_SKIP() << "no CUDA device was found";
  constexpr uint32_t kRows = kSampleRows + 5;
  constexpr uint64_t kVocab = 5000;
  SampleRunner one(1), many(kRows);
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> logits(kRows, std::vector<float>(kVocab));
  std::vector<std::vector<int32_t>> apart;
  std::vector<DeviceMemory<float>> device;
  std::vector<Candidates> found(kRows);
  std::vector<SampleRunner::Row> rows;
  for (uint32_t i = 0; i < kRows; ++i) {
    for (float& logit : logits[i]) logit = normal(random);
    apart.push_back(some_tokens(random, kVocab));
    device.push_back(upload(logits[i].data(), kVocab, "logits"));
    const CandidateRequest request = {kVocab, 1 + i * 50, i % 2 ? 0.7f : 0.0f, apart[i]};
    rows.push_back({request, device[i].get(), &found[i]});
  }
  many.enqueue(rows, nullptr);
  check(cudaStreamSynchronize(nullptr), "sampling");
  many.read();
  for (uint32_t i = 0; i < kRows; ++i) {
    std::sort(found[i].likeliest.begin(), found[i].likeliest.end(), likelier);
    const Candidates alone = find(one, logits[i], rows[i].request);
    EXPECT_TRUE(same(found[i].likeliest, alone.likeliest)) << i;
    EXPECT_TRUE(same(found[i].apart, alone.apart)) << i;
    EXPECT_EQ(found[i].total, alone.total) << i;
  }
}

TEST(Sample, GivesNothingOfLogitsWithoutAnOrder) {
  if (!has_gpu()) GTEST_SKIP() << "no CUDA device was found";
  SampleRunner runner(1);
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (const LogitsKind& kind : kUnorderedKinds) {
    std::vector<float> logits(5000);
    for (float& logit : logits) logit = kind.logit(random, normal);
    const std::vector<int32_t> apart = {4999, 0, 17};
    const CandidateRequest request = {logits.size(), 40, 1, apart};
    const Candidates found = find(runner, logits, request);
    EXPECT_TRUE(found.likeliest.empty()) << kind.name;
    expect_right(found, logits, request, kind.name);
  }
  // What is set apart is the caller's to look at.
  const std::vector<int32_t> apart = {7};
  EXPECT_EQ(find(runner, {1, 2, 3, 4, 5, 6, 7, NAN}, {8, 2, 1, apart}).likeliest.size(), 2u);
}

class CudaSampling : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no CUDA device was found";
    file_ = ::testing::TempDir() + fmt::format("sampling-{}.upg", ::getpid());
    CompressOptions rounded;
    rounded.calibrate = "none";
    compress(source_path("models/demo"), file_, rounded);
  }
  void TearDown() override { std::filesystem::remove(file_); }
  std::string file_;
};

struct Mix {
  const char* name;
  std::function<void(SamplingOptions&)> set;
};
const Mix kMixes[] = {
    {"greedy", [](auto& o) { o.temperature = 0; }},
    {"greedy with penalties", [](auto& o) { o.temperature = 0, o.repetition_penalty = 1.3f; }},
    {"plain", [](auto&) {}},
    {"flat", [](auto& o) { o.temperature = 2.5f; }},
    {"top_k", [](auto& o) { o.top_k = 20, o.repetition_penalty = 1.1f; }},
    {"large top_k", [](auto& o) { o.top_k = 5000; }},
    {"top_p", [](auto& o) { o.top_p = 0.9f, o.temperature = 0.8f, o.presence_penalty = 0.5f; }},
    {"min_p", [](auto& o) { o.min_p = 0.1f, o.frequency_penalty = 0.7f; }},
    {"bias",
     [](auto& o) {
       o.top_k = 40, o.logit_bias = {{427, 4.0f}, {264, -INFINITY}};
     }},
};

TEST_F(CudaSampling, CandidatesGiveTheTokensThatAllLogitsGive) {
  Weights weights(file_);
  OpContext context(1);
  const std::unique_ptr<Model> model = load_model(weights);
  const uint64_t vocab = model->shape().vocab_size;
  for (const char* fusion : {"graph", "token"}) {  // after a graph, and after a launch
    const std::unique_ptr<Device> device =
        open_device(*model, context, {.fusion = fusion, .gpu_layers = {}, .progress = {}});
    const auto timeline = [&] { return device->timeline(128, find_kv_type("f16"), Activations::kQuantized); };
    const std::unique_ptr<Timeline> a = timeline(), b = timeline();
    for (const Mix& mix : kMixes) {
      int tokens = 0, fetched = 0;
      for (uint64_t seed = 0; seed < 4; ++seed) {
        SamplingOptions options;
        mix.set(options);
        options.seed = seed;
        Sampler whole(options, vocab), listed(options, vocab);
        a->set_length(0);
        b->set_length(0);
        int32_t token = 427;
        std::vector<float> logits(vocab);
        Candidates next;
        for (int i = 0; i < 40; ++i) {
          const std::string label = fmt::format("{}, {}, seed {}, token {}", fusion, mix.name, seed, i);
          whole.saw(token);
          listed.saw(token);
          a->forward(std::span(&token, 1), {0, 1}, logits.data());
          const CandidateRequest request = listed.request();
          b->forward_candidates(std::span(&token, 1), request, next);
          ++tokens;
          std::optional<int32_t> chosen;
          if (next.logits.empty()) {
            if (!request.likeliest_alone()) {
              std::sort(next.likeliest.begin(), next.likeliest.end(), likelier);
              expect_right(next, logits, request, label);
            }
            chosen = listed.next(next);
          }
          if (!chosen) {
            ++fetched;
            if (next.logits.empty()) b->fetch_logits(next);
            ASSERT_EQ(next.logits, logits) << label;
            chosen = listed.next(next.logits);
          }
          token = whole.next(logits);
          ASSERT_EQ(*chosen, token) << label;
        }
      }
      std::printf("%s, %s: %d of %d tokens needed all logits\n", fusion, mix.name, fetched, tokens);
      if (std::string(mix.name) == "large top_k") {
        EXPECT_EQ(fetched, tokens) << "more than there is room for";
      } else if (std::string(mix.name) == "flat") {
        EXPECT_GT(fetched, 0);
      } else {
        EXPECT_LE(fetched, tokens / 10) << fusion << ", " << mix.name;
      }
    }
  }
}

TEST_F(CudaSampling, ASessionsTextIsThatOfAllLogits) {
  const auto engine = Engine::open(file_, {.device = "cuda"});
  const std::vector<int32_t> prompt = engine->tokenize("The history of");
  for (const Mix& mix : kMixes)
    for (uint64_t seed = 0; seed < 8; ++seed) {
      GenerateOptions options;
      mix.set(options.sampling);
      options.sampling.seed = seed;
      options.max_tokens = 40;
      options.ignore_eos = true;
      Sampler sampler(options.sampling, engine->info().vocab_size);
      for (int32_t token : prompt) sampler.saw(token);
      Session by_logits(engine), session(engine);
      std::vector<int32_t> expected = {sampler.next(by_logits.feed(prompt))};
      while (expected.size() < 40) expected.push_back(sampler.next(by_logits.feed(std::span(expected).last(1))));
      EXPECT_EQ(session.generate(prompt, options).tokens, expected) << mix.name << ", seed " << seed;
    }
}

}  // namespace
}  // namespace upg::cuda
