// Evaluation against figures computed here from the logits, and the files that it refuses.
#include "upg/evaluate.h"

#include <cmath>

#include "model/test_util.h"
#include "upg/engine.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

const char* const kText =
    "The history of the city begins with a small settlement on the river. In the year 1200 it was given the right to "
    "hold a market, and by the end of the century a wall had been built around it. The church was finished later.\n";

double nll(std::span<const float> logits, int32_t answer) {
  double sum = 0;
  for (float x : logits) sum += std::exp(static_cast<double>(x));
  return std::log(sum) - logits[static_cast<size_t>(answer)];
}

class Evaluate : public TemporaryFolderTest {
 protected:
  std::string write(const std::string& text) {
    write_file(path("data.txt"), text);
    return path("data.txt");
  }
  static std::string refusal(const std::function<void()>& action) { return error_of(action).value_or("accepted"); }
};

TEST_F(Evaluate, PerplexityIsThatOfTheSecondHalvesOfTheChunks) {
  EvaluateOptions options;
  options.context = 16;
  options.threads = 2;
  const TextEvaluation e = evaluate_text(demo_model(), write(kText), options);
  const auto engine = Engine::open(demo_model(), {1});
  const std::vector<int32_t> ids = engine->tokenize(kText);
  ASSERT_EQ(e.tokens, ids.size());
  ASSERT_EQ(e.chunks, ids.size() / 16);
  ASSERT_GE(e.chunks, 2u);
  EXPECT_EQ(e.scored, e.chunks * 7);
  double sum = 0;
  for (uint64_t chunk = 0; chunk < e.chunks; ++chunk) {
    Session session(engine, {16, "f16", true});
    for (uint64_t i = 0; i < 15; ++i) {
      const auto logits = session.feed(std::span(ids).subspan(chunk * 16 + i, 1));
      if (i >= 8) sum += nll(logits, ids[chunk * 16 + i + 1]);
    }
  }
  const double perplexity = std::exp(sum / static_cast<double>(e.scored));
  EXPECT_NEAR(e.perplexity.value, perplexity, 1e-3 * perplexity);
  EXPECT_GT(e.perplexity.standard_error, 0);
}

TEST_F(Evaluate, AModelDoesNotDivergeFromItself) {
  EvaluateOptions options;
  options.context = 16;
  options.chunks = 2;
  options.reference = demo_model();
  std::vector<uint64_t> done;
  options.progress = [&](std::string_view, uint64_t d, uint64_t total) {
    EXPECT_EQ(total, 32u);
    done.push_back(d);
    return true;
  };
  const TextEvaluation e = evaluate_text(demo_model(), write(kText), options);
  EXPECT_EQ(e.chunks, 2u);
  EXPECT_EQ(e.mean_kld.value, 0);
  EXPECT_EQ(e.max_kld, 0);
  EXPECT_EQ(e.p99_kld, 0);
  EXPECT_EQ(e.perplexity_ratio.value, 1);
  EXPECT_EQ(e.perplexity_ratio.standard_error, 0);
  EXPECT_EQ(e.same_top1.value, 1);
  EXPECT_EQ(e.perplexity.value, e.reference_perplexity.value);
  EXPECT_EQ(done, (std::vector<uint64_t>{0, 16, 32}));
}

TEST_F(Evaluate, AnotherModelDiverges) {
  EditableCheckpoint other(demo_model());
  for (OwnedTensor& t : other.tensors)
    if (t.name == "model.norm.weight") t.fill(0.5f);
  const std::string dir = other.write(path("other"));
  std::filesystem::copy_file(demo_model() + "/tokenizer.json", dir + "/tokenizer.json");
  EvaluateOptions options;
  options.context = 16;
  options.reference = demo_model();
  const TextEvaluation e = evaluate_text(dir, write(kText), options);
  EXPECT_GT(e.mean_kld.value, 0.01);
  EXPECT_GE(e.max_kld, e.p99_kld);
  EXPECT_GE(e.p99_kld, e.mean_kld.value);
  EXPECT_LT(e.same_top1.value, 1);
  EXPECT_NEAR(e.perplexity_ratio.value, e.perplexity.value / e.reference_perplexity.value, 1e-9);
}

TEST_F(Evaluate, TooLittleTextAndWrongContextsAreRefused) {
  EvaluateOptions options;
  EXPECT_THAT(refusal([&] { evaluate_text(demo_model(), write("short"), options); }),
              HasSubstr("enough for 0 chunks of 512"));
  EXPECT_THAT(refusal([&] { evaluate_text(demo_model(), write(""), options); }), HasSubstr("has 0 tokens"));
  options.context = 16;
  options.chunks = 1000;
  EXPECT_THAT(refusal([&] { evaluate_text(demo_model(), write(kText), options); }), HasSubstr("1000 are asked for"));
  options.chunks = 0;
  options.context = 3;
  EXPECT_THAT(refusal([&] { evaluate_text(demo_model(), write(kText), options); }), HasSubstr("4 is the least"));
  options.context = 16;
  options.reference = golden_model("tied_f16");
  EXPECT_THAT(refusal([&] { evaluate_text(demo_model(), write(kText), options); }), HasSubstr("vocabulary of 8192"));
  EXPECT_THAT(refusal([&] { evaluate_text(demo_model(), path("absent"), {}); }), HasSubstr("absent"));
  options.reference.clear();
  options.progress = [](std::string_view, uint64_t, uint64_t) { return false; };
  EXPECT_THAT(refusal([&] { evaluate_text(demo_model(), write(kText), options); }), HasSubstr("cancelled"));
}

TEST_F(Evaluate, TokensBeyondTheVocabularyAreRefusedEvenWhereTheyAreOnlyPredicted) {
  EditableCheckpoint tiny(golden_model("one_kv_head_bf16"));  // 101 tokens
  const std::string dir = tiny.write(path("model"));
  std::filesystem::copy_file(demo_model() + "/tokenizer.json", dir + "/tokenizer.json");
  const std::string text = "1A1 the";
  const std::vector<int32_t> ids = Engine::open(dir)->tokenize(text);
  ASSERT_EQ(ids.size(), 4u);
  ASSERT_LT(*std::max_element(ids.begin(), ids.end() - 1), 101);
  ASSERT_GT(ids.back(), 101);
  EvaluateOptions options;
  options.context = 4;
  EXPECT_THAT(refusal([&] { evaluate_text(dir, write(text), options); }), HasSubstr("outside the vocabulary of 101"));
  EXPECT_THAT(refusal([&] { evaluate_task(dir, "lambada", write(R"({"text": "1A1 the"})")); }),
              HasSubstr("outside the vocabulary of 101"));
}

TEST_F(Evaluate, LambadaScoresTheLastWord) {
  // " States" is what the model says itself; " zebras" is not.
  const TaskEvaluation e = evaluate_task(demo_model(), "lambada",
                                         write("{\"text\": \"The history of the United States\"}\n"
                                               "\n{\"text\": \"The history of the United zebras\"}\n"));
  EXPECT_EQ(e.items, 2u);
  EXPECT_EQ(e.accuracy.value, 0.5);
  EXPECT_FALSE(e.normalized_accuracy);
  ASSERT_TRUE(e.perplexity);
  const auto engine = Engine::open(demo_model(), {1});
  const std::vector<int32_t> before = engine->tokenize("The history of the United");
  double sum = 0;
  size_t n = 0;
  for (const char* word : {" States", " zebras"}) {
    Session session(engine, {0, "f16", true});
    const std::vector<int32_t> answer = engine->tokenize(word);
    std::span<const float> logits = session.feed(before);
    for (size_t i = 0; i < answer.size(); ++i, ++n) {
      sum += nll(logits, answer[i]);
      if (i + 1 < answer.size()) logits = session.feed(std::span(answer).subspan(i, 1));
    }
  }
  const double perplexity = std::exp(sum / static_cast<double>(n));
  EXPECT_NEAR(e.perplexity->value, perplexity, 2e-3 * perplexity);
}

TEST_F(Evaluate, HellaSwagChoosesTheLikeliestEnding) {
  const std::string good = "of the United Kingdom", bad = "zq xj vk wq";
  const std::string data = "The history\n1\n" + bad + "\n" + good + "\n" + bad + "\n" + bad + "\n" +  //
                           "The history\n3\n" + good + "\n" + bad + "\n" + bad + "\n" + bad + "\n";
  const TaskEvaluation e = evaluate_task(demo_model(), "hellaswag", write(data));
  EXPECT_EQ(e.items, 2u);
  EXPECT_EQ(e.accuracy.value, 0.5);
  ASSERT_TRUE(e.normalized_accuracy);
  EXPECT_EQ(e.normalized_accuracy->value, 0.5);
  EXPECT_FALSE(e.perplexity);
  EXPECT_EQ(evaluate_task(demo_model(), "hellaswag", write(data), 1).accuracy.value, 1);
}

TEST_F(Evaluate, WrongTaskFilesAreRefusedWithTheLine) {
  auto task = [&](const char* name, const std::string& text) {
    return refusal([&] { evaluate_task(demo_model(), name, write(text)); });
  };
  EXPECT_THAT(task("squad", ""), HasSubstr("hellaswag, lambada"));
  EXPECT_THAT(task("lambada", ""), HasSubstr("no records"));
  EXPECT_THAT(task("lambada", "{\"text\": \"a b\"}\nnonsense\n"), HasSubstr("line 2"));
  EXPECT_THAT(task("lambada", "{\"txt\": \"a b\"}"), HasSubstr("\"text\""));
  EXPECT_THAT(task("lambada", "{\"text\": \"word\"}"), HasSubstr("must end in a space"));
  EXPECT_THAT(task("hellaswag", "c\n4\na\nb\nc\nd\n"), HasSubstr("line 2"));
  EXPECT_THAT(task("hellaswag", "c\n0\na\nb\nc\n"), HasSubstr("fewer than six lines"));
  EXPECT_THAT(task("hellaswag", "c\n"), HasSubstr("line 2"));
}

}  // namespace
}  // namespace upg
