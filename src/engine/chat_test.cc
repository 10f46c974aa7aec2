// Conversations with the demo model: what a turn reads, what is kept, and what happens when something is in the way.
#include "upg/chat.h"

#include <filesystem>
#include <map>

#include "format/json.h"
#include "model/test_util.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string builtin(std::string_view name) {
  for (const BuiltinTemplate& row : builtin_chat_templates())
    if (row.name == name) return std::string(row.text);
  ADD_FAILURE() << "no template " << name;
  return "";
}

std::shared_ptr<Engine> open_with(const std::string& chat_template) {
  static std::map<std::string, std::shared_ptr<Engine>> engines;
  std::shared_ptr<Engine>& engine = engines[chat_template];
  if (!engine) {
    EngineOptions options;
    options.threads = 2;
    options.chat_template = chat_template;
    engine = Engine::open(demo_model(), options);
  }
  return engine;
}

std::shared_ptr<Engine> demo() { return open_with(builtin("phi-4")); }

GenerateOptions greedy(uint64_t max_tokens) {
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_tokens = max_tokens;
  return options;
}

std::string refusal(const std::function<void()>& action, ErrorCode expected = ErrorCode::kInvalidArgument) {
  ErrorCode code{};
  const auto message = error_of(action, &code);
  if (!message) return "accepted";
  EXPECT_EQ(code, expected) << *message;
  return *message;
}

std::vector<int32_t> encode(const std::string& text) { return demo()->tokenize(text, true, false); }

// What stands between an answer and the next, in the phi-4 template.
std::string turn(const std::string& message) {
  return "<|im_start|>user<|im_sep|>" + message + "<|im_end|><|im_start|>assistant<|im_sep|>";
}

std::vector<int32_t> joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(Chat, ASecondTurnReadsOnlyWhatIsNew) {
  Chat chat(demo());
  const std::vector<int32_t> first = encode(turn("Hello there"));
  const ChatResult one = chat.say("Hello there", greedy(12));
  EXPECT_EQ(one.prompt_tokens, first.size());
  EXPECT_EQ(one.reused_tokens, 0u);
  EXPECT_EQ(one.tokens, Session(demo()).generate(first, greedy(12)).tokens);
  ASSERT_EQ(one.tokens.size(), 12u);
  EXPECT_EQ(chat.tokens(), first.size() + 11);

  // The twelfth token ended the answer before the model had read it.
  const std::vector<int32_t> between = encode("<|im_end|>" + turn("Tell me more"));
  const ChatResult two = chat.say("Tell me more", greedy(12));
  EXPECT_EQ(two.reused_tokens, first.size() + 11);
  EXPECT_EQ(two.prompt_tokens, 1 + between.size());
  const std::vector<int32_t> whole = joined(joined(first, one.tokens), between);
  EXPECT_EQ(two.tokens, Session(demo()).generate(whole, greedy(12)).tokens);
  EXPECT_EQ(chat.messages(), 4u);
}

TEST(Chat, TheEndTokenIsReadOnceAsPartOfTheNextTurn) {
  EXPECT_THAT(Chat(demo()).end_tokens(), ElementsAre(3));
  for (float bias = 16; bias < 20; bias += 0.5f) {
    Chat chat(demo());
    GenerateOptions options = greedy(20);
    options.sampling.logit_bias = {{3, bias}};
    const ChatResult one = chat.say("Hello there", options);
    if (one.finish != FinishReason::kStop || one.tokens.size() < 2) continue;
    EXPECT_EQ(chat.tokens(), one.prompt_tokens + one.tokens.size());
    const ChatResult two = chat.say("And then?", options);
    EXPECT_EQ(two.reused_tokens, one.prompt_tokens + one.tokens.size());
    EXPECT_EQ(two.prompt_tokens, encode("<|im_end|>" + turn("And then?")).size());
    return;
  }
  FAIL() << "no answer ended by itself";
}

TEST(Chat, WhatWasGeneratedStaysEvenWhereItsTextHasOtherTokens) {
  Chat chat(demo());
  GenerateOptions options = greedy(9);
  options.sampling.temperature = 1;
  for (const char* letter : {"t", "h", "e", "n"}) options.sampling.logit_bias[encode(letter).at(0)] = 100;
  const ChatResult one = chat.say("Say something", options);
  ASSERT_NE(encode(one.text), one.tokens);
  const ChatResult two = chat.say("More", options);
  EXPECT_EQ(two.reused_tokens, one.prompt_tokens + 8);
  const ChatResult three = chat.say("More", options);
  EXPECT_EQ(three.reused_tokens, two.reused_tokens + two.prompt_tokens + 8);
}

TEST(Chat, AnAnswerCanBeMadeAgainWithAnotherSeed) {
  GenerateOptions options = greedy(20);
  options.sampling.temperature = 1;
  options.sampling.seed = 5;
  Chat chat(demo());
  EXPECT_THAT(refusal([&] { chat.regenerate(options); }), HasSubstr("no answer yet"));
  const ChatResult first = chat.say("Hello", options);
  const ChatResult second = chat.regenerate(options);
  EXPECT_EQ(second.prompt_tokens, 1u);
  EXPECT_EQ(second.reused_tokens, first.prompt_tokens - 1);
  EXPECT_NE(second.text, first.text);
  const ChatResult third = chat.regenerate(options);
  EXPECT_NE(third.text, second.text);
  EXPECT_EQ(chat.messages(), 2u);
  for (uint64_t seed : {6u, 7u}) {
    options.sampling.seed = seed;
    EXPECT_EQ(Chat(demo()).say("Hello", options).text, seed == 6 ? second.text : third.text);
  }
  EXPECT_THAT(chat.to_json(), HasSubstr(Json(third.text).dump()));
}

TEST(Chat, ATemplateThatRewritesHistoryIsReadAgainFromThereOn) {
  Chat chat(
      open_with("{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' }}"
                "{{ '(cut)' if m.role == 'assistant' and not loop.last else m.content }}{{ '<|im_end|>' }}{% endfor %}"
                "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"));
  const ChatResult one = chat.say("Hello there", greedy(10));
  const ChatResult two = chat.say("Tell me more", greedy(10));
  EXPECT_EQ(two.reused_tokens, one.prompt_tokens);
  const std::vector<int32_t> whole = encode(turn("Hello there") + "(cut)<|im_end|>" + turn("Tell me more"));
  EXPECT_EQ(two.reused_tokens + two.prompt_tokens, whole.size());
  EXPECT_EQ(two.tokens, Session(demo()).generate(whole, greedy(10)).tokens);
  // The first two turns stay as they are from now on.
  EXPECT_EQ(chat.say("More", greedy(10)).reused_tokens, whole.size());
}

TEST(Chat, ATemplateWithoutEndTokensEndsAnswersWithText) {
  Chat chat(open_with(builtin("plain")));
  EXPECT_THAT(chat.end_tokens(), ElementsAre());
  EXPECT_THAT(chat.end_texts(), ElementsAre("\nUser:"));
  const ChatResult one = chat.say("Hello there", greedy(10));
  EXPECT_EQ(one.tokens, Session(demo()).generate(encode("User: Hello there\n\nAssistant:"), greedy(10)).tokens);
  const ChatResult two = chat.say("Tell me more", greedy(10));
  EXPECT_GE(two.reused_tokens, one.prompt_tokens);
}

TEST(Chat, AFullContextIsSaidAndTheConversationGoesOn) {
  Chat chat(demo(), {.context = 48});
  chat.say("Hello", greedy(4));
  const std::string before = chat.to_json();
  std::string message = "one";
  for (int i = 0; i < 60; ++i) message += " one";
  const std::string says = refusal([&] { chat.say(message, greedy(4)); });
  EXPECT_THAT(says, HasSubstr("the context holds 48"));
  EXPECT_THAT(says, ::testing::ContainsRegex("has (7|8)[0-9] tokens"));
  EXPECT_THAT(says, HasSubstr("/clear"));
  EXPECT_EQ(chat.to_json(), before);
  const ChatResult next = chat.say("More", greedy(100));
  EXPECT_EQ(next.finish, FinishReason::kLength) << "it may use what is left";
  EXPECT_EQ(chat.tokens(), 48u);
  EXPECT_THAT(refusal([&] { chat.say("More", greedy(4)); }), HasSubstr("the context holds 48"));
  chat.clear();
  EXPECT_EQ(chat.tokens(), 0u);
  EXPECT_EQ(chat.say("Hello", greedy(4)).tokens.size(), 4u);
}

TEST(Chat, WrongRequestsChangeNothing) {
  Chat chat(demo());
  chat.say("Hello", greedy(4));
  const std::string before = chat.to_json();
  GenerateOptions wrong = greedy(4);
  wrong.sampling.top_p = 2;
  EXPECT_THAT(refusal([&] { chat.say("More", wrong); }), HasSubstr("top_p is 2"));
  EXPECT_THAT(refusal([&] { chat.regenerate(wrong); }), HasSubstr("top_p is 2"));
  EXPECT_THAT(refusal([&] { chat.say("", greedy(4)); }), HasSubstr("message is empty"));
  GenerateOptions impatient = greedy(4);
  impatient.progress = [](std::string_view, uint64_t, uint64_t) { return false; };
  EXPECT_THAT(refusal([&] { chat.say("More", impatient); }, ErrorCode::kCancelled), HasSubstr("cancelled"));
  EXPECT_EQ(chat.to_json(), before);
}

TEST(Chat, AnAnswerThatIsCutShortIsKept) {
  Chat chat(demo());
  int calls = 0;
  const ChatResult one = chat.say("Hello", greedy(50), [&](std::string_view) { return ++calls < 3; });
  EXPECT_EQ(one.finish, FinishReason::kCancelled);
  EXPECT_THAT(chat.to_json(), HasSubstr(Json(one.text).dump()));
  EXPECT_EQ(chat.say("More", greedy(4)).reused_tokens, one.prompt_tokens + one.tokens.size() - 1);
}

TEST(Chat, ASystemMessageBeginsEveryConversation) {
  Chat chat(demo());
  chat.say("Hello", greedy(4));
  chat.set_system("You are brief.");
  EXPECT_EQ(chat.messages(), 0u);
  const std::string start = "<|im_start|>system<|im_sep|>You are brief.<|im_end|>";
  const ChatResult one = chat.say("Hello", greedy(4));
  EXPECT_EQ(one.reused_tokens + one.prompt_tokens, encode(start + turn("Hello")).size());
  chat.clear();
  EXPECT_EQ(chat.system(), "You are brief.");
  const ChatResult again = chat.say("Good morning", greedy(4));
  EXPECT_GE(again.reused_tokens, encode(start).size()) << "what the conversations share is not read again";
  chat.set_system("");
  EXPECT_EQ(chat.say("Hello", greedy(4)).text, Chat(demo()).say("Hello", greedy(4)).text);
}

TEST(Chat, IllFormedTextBecomesReplacementCharacters) {
  Chat chat(demo());
  chat.say("caf\xe9 \xff", greedy(2));
  chat.set_system("\xfe");
  EXPECT_EQ(chat.system(), "\xef\xbf\xbd");
}

TEST(Chat, AConversationThatTheCallerKeepsReusesWhatIsHeld) {
  Chat chat(demo());
  const ChatResult one = chat.reply(R"([{"role": "user", "content": "Hello there"}])", {}, greedy(8));
  const Json messages = {{{"role", "user"}, {"content", "Hello there"}},
                         {{"role", "assistant"}, {"content", one.text}},
                         {{"role", "user"}, {"content", "More"}}};
  EXPECT_EQ(chat.reply(messages.dump(), {}, greedy(8)).reused_tokens, one.prompt_tokens + 7);
  EXPECT_EQ(chat.messages(), 0u);
}

class ChatFiles : public TemporaryFolderTest {};

TEST_F(ChatFiles, ASavedConversationGoesOnAsItWouldHave) {
  Chat chat(demo());
  chat.set_system("You are \"brief\".\n");
  chat.say("Hello \xf0\x9f\x98\x80", greedy(8));
  chat.save(path("chat.json"), R"({"temperature": 0.5})");
  Chat other(demo());
  std::string params;
  other.load(path("chat.json"), [&](std::string_view text) { params = text; });
  EXPECT_EQ(Json::parse(params), Json({{"temperature", 0.5}}));
  EXPECT_EQ(other.to_json(), chat.to_json());
  EXPECT_EQ(other.system(), chat.system());
  EXPECT_EQ(other.tokens(), 0u);
  EXPECT_EQ(other.messages(), 2u);
  EXPECT_EQ(other.say("More", greedy(8)).tokens.size(), 8u);
  other.from_json(chat.to_json());
  EXPECT_EQ(other.to_json(), chat.to_json());
  EXPECT_THAT(refusal([&] { chat.save(path("absent/chat.json")); }, ErrorCode::kIo), HasSubstr("absent"));
  EXPECT_THAT(refusal([&] { chat.load(path("nothing.json")); }, ErrorCode::kNotFound), HasSubstr("nothing.json"));
}

TEST_F(ChatFiles, HostileFilesAreRefusedAndChangeNothing) {
  Chat chat(demo());
  chat.say("Hello", greedy(2));
  const std::string before = chat.to_json();
  const std::pair<const char*, const char*> wrong[] = {
      {"", "not valid JSON"},
      {"[]", "expected a JSON object"},
      {"{}", "must have \"messages\""},
      {R"({"messages": {}})", "must have \"messages\""},
      {R"({"messages": [3]})", "messages[0] is of type number"},
      {R"({"messages": [{"role": "user"}]})", "messages[0] must have role and content"},
      {R"({"messages": [{"role": "user", "content": 3}]})", "messages[0]: content is of type number"},
      {R"({"messages": [{"role": "user", "content": "a", "name": "b"}]})", "has \"name\""},
      {R"({"messages": [{"role": "tool", "content": "a"}]})", "role is \"tool\", must be \"user\""},
      {R"({"messages": [{"role": "user", "content": "a"}]})", "last message must be the assistant's"},
      {R"({"messages": [{"role": "system", "content": "a"}, {"role": "system", "content": "a"}]})",
       "messages[1]: role is \"system\""},
      {R"({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "a"}]})",
       "must be \"assistant\""},
      {R"({"messages": [], "messages": []})", "appears twice"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": \"\xff\"}]}", "not valid JSON"},
      {R"({"messages": [], "params": {"temperature": 9}})", "hot"},
  };
  for (const auto& [text, says] : wrong) {
    write_file(path("wrong.json"), text);
    const auto load = [&] {
      chat.load(path("wrong.json"), [](std::string_view params) {
        if (params != "{}") throw Error(ErrorCode::kInvalidFile, "hot");
      });
    };
    EXPECT_THAT(refusal(load, ErrorCode::kInvalidFile), HasSubstr(says)) << text;
    EXPECT_EQ(chat.to_json(), before);
  }
  write_file(path("deep.json"), "{\"messages\": " + std::string(100000, '[') + std::string(100000, ']') + "}");
  EXPECT_THAT(refusal([&] { chat.load(path("deep.json")); }, ErrorCode::kInvalidFile), HasSubstr("nests deeper"));
}

TEST_F(ChatFiles, AModelWithoutATemplateIsRefusedWithAdvice) {
  for (const auto& entry : std::filesystem::directory_iterator(demo_model()))
    std::filesystem::create_symlink(entry.path(), path(entry.path().filename()));
  std::filesystem::remove(path("tokenizer_config.json"));
  write_file(path("tokenizer_config.json"), "{}");
  const auto engine = Engine::open(path(""), {1});
  const std::string says = refusal([&] { Chat{engine}; }, ErrorCode::kNotFound);
  EXPECT_THAT(says, HasSubstr("no chat template"));
  EXPECT_THAT(says, HasSubstr("--template"));
  EXPECT_THAT(says, HasSubstr("upg run"));
}

TEST(BuiltinTemplates, RenderAConversation) {
  const std::map<std::string, std::string> expected = {
      {"chatml",
       "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
       "<|im_start|>user\nv<|im_end|>\n<|im_start|>assistant\n"},
      {"phi-4",
       "<|im_start|>system<|im_sep|>s<|im_end|><|im_start|>user<|im_sep|>u<|im_end|><|im_start|>assistant<|im_sep|>a"
       "<|im_end|><|im_start|>user<|im_sep|>v<|im_end|><|im_start|>assistant<|im_sep|>"},
      {"llama-3",
       "<|start_header_id|>system<|end_header_id|>\n\ns<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nu<|eot_id|"
       ">"
       "<|start_header_id|>assistant<|end_header_id|>\n\na<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nv"
       "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
      {"gemma",
       "<start_of_turn>user\ns\n\nu<end_of_turn>\n<start_of_turn>model\na<end_of_turn>\n<start_of_turn>user\nv"
       "<end_of_turn>\n<start_of_turn>model\n"},
      {"plain", "s\n\nUser: u\n\nAssistant: a\n\nUser: v\n\nAssistant:"},
  };
  const std::map<std::string, std::string> ends = {{"llama-3", "<|eot_id|>"}, {"gemma", "<end_of_turn>"}};
  for (const BuiltinTemplate& row : builtin_chat_templates()) {
    const std::string name(row.name);
    ASSERT_TRUE(expected.contains(name)) << name;
    const auto engine = open_with(std::string(row.text));
    const std::string text = engine->render_chat(
        R"([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"},
            {"role": "user", "content": "v"}])");
    // The demo's own token for the beginning of a text comes first where a template asks for it.
    const size_t start = text.starts_with("<|endoftext|>") ? std::string("<|endoftext|>").size() : 0;
    EXPECT_EQ(text.substr(start), expected.at(name)) << name;
    // Markup that is no token of this model ends an answer as text.
    if (ends.contains(name)) {
      EXPECT_THAT(Chat(engine).end_texts(), ElementsAre(ends.at(name)));
    }
  }
}

}  // namespace
}  // namespace upg
