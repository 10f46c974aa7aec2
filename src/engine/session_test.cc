// Engine and Session on the demo model: what is generated, streamed, refused and forgotten.
#include <set>

#include "model/test_util.h"
#include "upg/engine.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

const std::shared_ptr<Engine>& demo() {
  static const std::shared_ptr<Engine> engine = Engine::open(demo_model(), {2});
  return engine;
}

GenerateOptions greedy(uint64_t max_tokens) {
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_tokens = max_tokens;
  options.ignore_eos = true;
  return options;
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t n = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 0;
    if (n == 0 || i + n > text.size()) return false;
    for (size_t k = 1; k < n; ++k)
      if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) return false;
    i += n;
  }
  return true;
}

std::string refusal(const std::function<void()>& action, ErrorCode expected = ErrorCode::kInvalidArgument) {
  ErrorCode code{};
  const auto message = error_of(action, &code);
  if (!message) return "accepted";
  EXPECT_EQ(code, expected) << *message;
  return *message;
}

TEST(Engine, InfoDescribesTheModel) {
  const ModelInfo& info = demo()->info();
  EXPECT_EQ(info.architecture, "Phi3ForCausalLM");
  EXPECT_EQ(info.parameters, 14424320u);
  EXPECT_EQ(info.weight_bytes, 2 * info.parameters);
  EXPECT_EQ(info.vocab_size, 8192u);
  EXPECT_EQ(info.max_context, 1024u);
  EXPECT_EQ(info.threads, 2u);
  EXPECT_EQ(demo()->end_tokens(), (std::vector<int32_t>{0}));
}

TEST(Engine, TextBecomesTokensAndTextAgain) {
  const std::vector<int32_t> ids = demo()->tokenize("The history of the United Kingdom");
  EXPECT_EQ(ids, (std::vector<int32_t>{427, 1574, 279, 264, 953, 2417}));
  EXPECT_EQ(demo()->detokenize(ids), "The history of the United Kingdom");
  EXPECT_EQ(demo()->tokenize("<|im_end|>"), (std::vector<int32_t>{3}));
  EXPECT_GT(demo()->tokenize("<|im_end|>", false).size(), 1u);
}

TEST(Engine, AConversationBecomesAPrompt) {
  ASSERT_TRUE(demo()->has_chat_template());
  const std::string messages = R"([{"role": "user", "content": "Hi"}])";
  EXPECT_EQ(demo()->render_chat(messages), "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>");
  ChatOptions options;
  options.add_generation_prompt = false;
  EXPECT_EQ(demo()->render_chat(messages, options), "<|im_start|>user<|im_sep|>Hi<|im_end|>");
  EXPECT_THAT(refusal([] { demo()->render_chat("Hi"); }), HasSubstr("messages: not valid JSON"));
  EXPECT_THAT(refusal([] { demo()->render_chat(R"([{"role": "user"}])"); }), HasSubstr("chat template:1:"));
}

TEST(Engine, AModelWithoutAChatTemplateSaysSo) {
  const auto engine = Engine::open(golden_model("tied_f16"), {1});
  EXPECT_FALSE(engine->has_chat_template());
  EXPECT_THAT(refusal([&] { engine->render_chat("[]"); }, ErrorCode::kNotFound), HasSubstr("has no chat template"));
}

TEST(Engine, AModelWithoutATokenizerStillRunsTokens) {
  const auto engine = Engine::open(golden_model("tied_f16"), {1});
  EXPECT_THAT(refusal([&] { engine->tokenize("x"); }, ErrorCode::kNotFound), HasSubstr("has no tokenizer.json"));
  const Golden golden(golden_model("tied_f16"));
  Session session(engine);
  const std::span<const float> logits = session.feed(golden.ids);
  EXPECT_EQ(std::max_element(logits.begin(), logits.end()) - logits.begin(), golden.greedy[0]);
}

TEST(Engine, TooManyThreadsAreRefused) {
  EXPECT_THAT(refusal([] { Engine::open(golden_model("tied_f16"), {10000000}); }),
              HasSubstr("10000000 threads are asked for"));
}

class EngineFiles : public TemporaryFolderTest {};

TEST_F(EngineFiles, WrongGenerationConfigsAreRefusedByField) {
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"temperature": "hot"})", "temperature"},
      {R"({"top_k": -1})", "top_k"},
      {R"({"do_sample": 1})", "do_sample"},
      {R"({"eos_token_id": 97})", "eos_token_id has 97"},
      {R"({"eos_token_id": [1, "x"]})", "eos_token_id has \"x\""},
      {"[", "generation_config.json"},
  };
  const std::string dir = EditableCheckpoint(golden_model("tied_f16")).write(path("model"));
  for (const auto& [text, expected] : wrong) {
    write_file(dir + "/generation_config.json", text);
    EXPECT_THAT(refusal([&] { Engine::open(dir); }, ErrorCode::kInvalidFile), HasSubstr(expected)) << text;
  }
}

TEST_F(EngineFiles, TheModelsOwnSamplingIsReadAndGreedyWithoutDoSample) {
  const std::string dir = EditableCheckpoint(golden_model("tied_f16")).write(path("model"));
  write_file(dir + "/generation_config.json",
             R"({"do_sample": true, "temperature": 0.7, "top_k": 9, "top_p": 0.5, "eos_token_id": [5, 6]})");
  const auto sampling = Engine::open(dir)->default_sampling();
  EXPECT_FLOAT_EQ(sampling.temperature, 0.7f);
  EXPECT_EQ(sampling.top_k, 9u);
  EXPECT_FLOAT_EQ(sampling.top_p, 0.5f);
  EXPECT_EQ(Engine::open(dir)->end_tokens(), (std::vector<int32_t>{5, 6}));
  write_file(dir + "/generation_config.json", R"({"temperature": 0.7})");
  EXPECT_EQ(Engine::open(dir)->default_sampling().temperature, 0.0f);
}

TEST(Session, GreedyTextIsTheReferences) {
  const auto prompts = nlohmann::json::parse(read_file(source_path("tests/data/demo/reference.json")));
  for (const auto& prompt : prompts) {
    Session session(demo());
    const auto expected = prompt["greedy"].get<std::vector<int32_t>>();
    const GenerateResult result = session.generate(prompt["ids"].get<std::vector<int32_t>>(), greedy(expected.size()));
    EXPECT_EQ(result.tokens, expected);
    EXPECT_EQ(result.text, prompt["greedy_text"].get<std::string>());
    EXPECT_EQ(result.finish, FinishReason::kLength);
    EXPECT_EQ(result.prompt_tokens, prompt["ids"].size());
  }
}

TEST(Session, FeedingInPartsGivesTheLogitsOfTheWhole) {
  std::vector<int32_t> ids;
  for (int i = 0; i < 700; ++i) ids.push_back((i * 37 + 11) % 8192);  // two chunks
  Session whole(demo()), parts(demo());
  const std::span<const float> expected = whole.feed(ids);
  parts.feed(std::span(ids).first(650));
  const std::span<const float> logits = parts.feed(std::span(ids).subspan(650));
  float difference = 0;
  for (size_t i = 0; i < expected.size(); ++i) difference = std::max(difference, std::abs(expected[i] - logits[i]));
  EXPECT_LT(difference, 2e-3f);
  EXPECT_EQ(parts.length(), 700u);
}

TEST(Session, FeedAllGivesARowForEachTokenFromTheFirstAskedFor) {
  std::vector<int32_t> ids;
  for (int i = 0; i < 600; ++i) ids.push_back((i * 41 + 5) % 8192);
  Session session(demo());
  std::vector<uint64_t> rows;
  std::vector<float> last;
  session.feed_all(ids, 509, [&](uint64_t token, std::span<const float> logits) {
    rows.push_back(token);
    last.assign(logits.begin(), logits.end());
  });
  ASSERT_EQ(rows.size(), 91u);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i], 509 + i);
  session.rewind(0);
  const std::span<const float> fed = session.feed(ids);
  EXPECT_LT(largest_difference({fed.begin(), fed.end()}, last), 1e-3f);
}

TEST(Session, RewindingGivesTheSameLogitsAgain) {
  Session session(demo());
  const std::vector<int32_t> start = {427, 1574, 279}, end = {264, 953};
  session.feed(start);
  const std::span<const float> first = session.feed(end);
  const std::vector<float> before(first.begin(), first.end());
  session.feed(std::vector<int32_t>{1, 2, 3, 4});
  session.rewind(3);
  EXPECT_EQ(session.length(), 3u);
  const std::span<const float> again = session.feed(end);
  EXPECT_EQ(std::vector<float>(again.begin(), again.end()), before);
  EXPECT_THAT(refusal([&] { session.rewind(6); }), HasSubstr("cannot rewind to position 6: the session holds 5"));
}

TEST(Session, WrongRequestsAreRefusedAndChangeNothing) {
  Session session(demo(), {8});
  EXPECT_EQ(session.context(), 8u);
  session.feed(std::vector<int32_t>{1, 2, 3});
  EXPECT_THAT(refusal([&] { session.feed({}); }), HasSubstr("empty"));
  EXPECT_THAT(refusal([&] { session.feed(std::vector<int32_t>{8192}); }), HasSubstr("token id 8192"));
  EXPECT_THAT(refusal([&] { session.feed(std::vector<int32_t>{-1}); }), HasSubstr("token id -1"));
  EXPECT_THAT(refusal([&] { session.feed(std::vector<int32_t>(6, 1)); }),
              HasSubstr("6 tokens do not fit: the context holds 8 and 3 are in use"));
  EXPECT_THAT(refusal([&] { session.generate({}, greedy(1)); }), HasSubstr("empty"));
  EXPECT_EQ(session.length(), 3u);
  EXPECT_THAT(refusal([] { Session(demo(), {1025}); }), HasSubstr("1024"));
  EXPECT_THAT(refusal([] { Session(demo(), {8, "f8"}); }), HasSubstr("\"f8\""));
}

TEST(Session, TheDefaultContextIsTheModels) { EXPECT_EQ(Session(demo()).context(), 1024u); }

TEST(Session, TheContextEndsGeneration) {
  Session session(demo(), {8});
  const std::vector<int32_t> prompt = {427, 1574, 279};
  const GenerateResult result = session.generate(prompt, greedy(100));
  EXPECT_EQ(result.tokens.size(), 6u) << "five are fed back, the sixth needs no room";
  EXPECT_EQ(result.finish, FinishReason::kLength);
  EXPECT_EQ(session.length(), 8u);
}

TEST(Session, NoTokensMayBeAskedFor) {
  Session session(demo());
  const GenerateResult result = session.generate(std::vector<int32_t>{427}, greedy(0));
  EXPECT_TRUE(result.tokens.empty());
  EXPECT_EQ(result.text, "");
  EXPECT_EQ(result.finish, FinishReason::kLength);
}

TEST(Session, StopStringsEndTheTextBeforeThem) {
  const std::vector<int32_t> prompt = {0, 427, 1574, 279, 264, 953, 2417};
  const std::string whole = Session(demo()).generate(prompt, greedy(40)).text;
  ASSERT_THAT(whole, HasSubstr("major political"));
  GenerateOptions options = greedy(40);
  options.stop = {"never", "jor pol"};
  std::string streamed;
  Session session(demo());
  const GenerateResult result = session.generate(prompt, options, [&](std::string_view text) {
    streamed += text;
    return true;
  });
  EXPECT_EQ(result.text, whole.substr(0, whole.find("jor pol")));
  EXPECT_EQ(streamed, result.text);
  EXPECT_EQ(result.finish, FinishReason::kStop);
  options.stop = {""};
  EXPECT_THAT(refusal([&] { session.generate(prompt, options); }), HasSubstr("stop string is empty"));
}

TEST(Session, AnEndTokenEndsTheTextUnlessIgnored) {
  GenerateOptions options = greedy(5);
  options.sampling.logit_bias = {{0, 1000.0f}};
  options.ignore_eos = false;
  const std::vector<int32_t> prompt = {427};
  GenerateResult result = Session(demo()).generate(prompt, options);
  EXPECT_TRUE(result.tokens.empty());
  EXPECT_EQ(result.finish, FinishReason::kStop);
  options.ignore_eos = true;
  result = Session(demo()).generate(prompt, options);
  EXPECT_EQ(result.tokens, std::vector<int32_t>(5, 0));
  EXPECT_EQ(result.finish, FinishReason::kLength);
}

TEST(Session, MoreEndTokensCanBeNamed) {
  GenerateOptions options = greedy(5);
  options.sampling.logit_bias = {{7, 1000.0f}};
  options.end_tokens = {6, 7};
  const std::vector<int32_t> prompt = {427};
  EXPECT_EQ(Session(demo()).generate(prompt, options).tokens, std::vector<int32_t>(5, 7))
      << "ignore_eos counts for all";
  options.ignore_eos = false;
  const GenerateResult result = Session(demo()).generate(prompt, options);
  EXPECT_TRUE(result.tokens.empty());
  EXPECT_EQ(result.finish, FinishReason::kStop);
}

TEST(Session, ItKnowsItsTokens) {
  Session session(demo());
  EXPECT_TRUE(session.tokens().empty());
  const std::vector<int32_t> start = {427, 1574};
  session.feed(start);
  const GenerateResult result = session.generate(std::vector<int32_t>{279}, greedy(3));
  std::vector<int32_t> expected = {427, 1574, 279};
  expected.insert(expected.end(), result.tokens.begin(), result.tokens.end() - 1);  // the last is not fed back
  EXPECT_THAT(session.tokens(), ::testing::ElementsAreArray(expected));
  session.rewind(2);
  EXPECT_THAT(session.tokens(), ::testing::ElementsAreArray(start));
}

TEST(Session, PenaltiesCountWhatWasFedBefore) {
  GenerateOptions options = greedy(20);
  options.sampling.repetition_penalty = 1.5f;
  const std::vector<int32_t> prompt = {427, 1574, 279, 264, 953, 2417};
  const std::vector<int32_t> whole = Session(demo()).generate(prompt, options).tokens;
  Session session(demo());
  session.feed(std::span(prompt).first(4));
  EXPECT_EQ(session.generate(std::span(prompt).subspan(4), options).tokens, whole);
}

TEST(Session, ReadingAPromptReportsProgressAndCanBeCancelled) {
  Session session(demo());
  const std::vector<int32_t> prompt(400, 427);
  GenerateOptions options = greedy(4);
  std::vector<uint64_t> seen;
  options.progress = [&](std::string_view stage, uint64_t done, uint64_t total) {
    EXPECT_EQ(stage, "prompt");
    EXPECT_EQ(total, 400u);
    seen.push_back(done);
    return true;
  };
  const std::vector<int32_t> whole = session.generate(prompt, options).tokens;
  EXPECT_EQ(seen.front(), 128u);
  EXPECT_EQ(seen.back(), 400u);
  EXPECT_EQ(Session(demo()).generate(prompt, greedy(4)).tokens, whole);
  session.rewind(0);
  options.progress = [](std::string_view, uint64_t, uint64_t) { return false; };
  EXPECT_THAT(refusal([&] { session.generate(prompt, options); }, ErrorCode::kCancelled), HasSubstr("cancelled"));
  EXPECT_EQ(session.length(), 128u);
}

TEST(Session, TheCallbackCanStopIt) {
  int calls = 0;
  const GenerateResult result =
      Session(demo()).generate(std::vector<int32_t>{427}, greedy(50), [&](std::string_view) { return ++calls < 3; });
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(result.finish, FinishReason::kCancelled);
  EXPECT_LT(result.tokens.size(), 10u);
}

TEST(Session, TheSameSeedGivesTheSameTextWhateverTheThreads) {
  GenerateOptions options = greedy(60);
  options.sampling.temperature = 1.2f;
  options.sampling.top_p = 0.95f;
  options.sampling.seed = 11;
  std::set<std::string> texts;
  for (unsigned threads : {1u, 3u})
    for (const char* kv : {"f16", "f16"})
      texts.insert(Session(Engine::open(demo_model(), {threads}), {0, kv})
                       .generate(std::vector<int32_t>{427, 1574}, options)
                       .text);
  EXPECT_EQ(texts.size(), 1u);
  options.sampling.seed = 12;
  texts.insert(Session(demo()).generate(std::vector<int32_t>{427, 1574}, options).text);
  EXPECT_EQ(texts.size(), 2u);
}

TEST(Session, StreamedTextIsWholeCharactersAndAllOfTheText) {
  GenerateOptions options = greedy(150);
  options.sampling.temperature = 3;
  // Bytes 0x80 and up are tokens of their own: half characters in plenty.
  for (int32_t id = 98; id < 260; ++id) options.sampling.logit_bias[id] = 12;
  for (uint64_t seed : {1u, 2u, 3u}) {
    options.sampling.seed = seed;
    std::string streamed;
    const GenerateResult result =
        Session(demo()).generate(std::vector<int32_t>{427}, options, [&](std::string_view text) {
          EXPECT_FALSE(text.empty());
          EXPECT_TRUE(is_utf8(text)) << ::testing::PrintToString(text);
          streamed += text;
          return true;
        });
    EXPECT_EQ(streamed, result.text);
    EXPECT_EQ(result.text, demo()->detokenize(result.tokens));
    EXPECT_THAT(result.text, HasSubstr("\xef\xbf\xbd")) << "the test should meet broken characters";
  }
}

}  // namespace
}  // namespace upg
