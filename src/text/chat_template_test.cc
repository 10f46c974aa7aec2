// Chats as transformers renders them: templates in tests/data/chat_templates against goldens that
// scripts/make_chat_goldens.py made, and which template and variables a model's files give.
#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "upg/error.h"

namespace upg {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr const char* kTokens =
    R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>", "pad_token": null})";
const std::chrono::system_clock::time_point kThen{std::chrono::seconds(1721995200)};

std::string read_data(const std::string& name) {
  std::ifstream file(std::string(UPG_SOURCE_DIR) + "/tests/data/chat_templates/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::unique_ptr<ChatTemplate> make(const std::string& source, const std::string& config = kTokens) {
  ModelTexts texts;
  texts.tokenizer_config = config;
  texts.chat_template = source;
  return ChatTemplate::from_texts(texts, "model");
}

std::string refusal(const ChatTemplate& chat, const ChatRequest& request) {
  try {
    return "rendered: " + chat.render(request);
  } catch (const Error& error) {
    return error.what();
  }
}

class ChatGoldens : public ::testing::TestWithParam<std::string> {};

TEST_P(ChatGoldens, conversations_render_as_transformers_renders_them) {
  setenv("TZ", "UTC", 1);
  const auto chat = make(read_data(GetParam() + ".jinja"));
  const json conversations = json::parse(read_data("conversations.json"));
  const json goldens = json::parse(read_data(GetParam() + ".golden.json"));
  ASSERT_EQ(conversations.size(), goldens.size());
  ASSERT_GE(goldens.size(), 70u);
  for (size_t i = 0; i < goldens.size(); ++i) {
    SCOPED_TRACE(conversations[i]["name"].get<std::string>());
    const std::string messages = conversations[i]["messages"], tools = conversations[i].value("tools", ""),
                      variables = conversations[i].value("variables", "");
    const ChatRequest request{messages, tools, variables, conversations[i]["add_generation_prompt"]};
    if (goldens[i].is_string())
      EXPECT_EQ(chat->render(request, kThen), goldens[i].get<std::string>());
    else
      EXPECT_THAT(refusal(*chat, request), AllOf(HasSubstr("model: chat template:"), HasSubstr(goldens[i]["refused"])));
  }
}

INSTANTIATE_TEST_SUITE_P(Templates, ChatGoldens,
                         ::testing::Values("phi", "chatml", "chatml_tools", "headers_tools", "strict_turns",
                                           "signatures", "values"),
                         [](const auto& each) { return each.param; });

TEST(ChatTemplate, models_without_one_have_none) {
  EXPECT_EQ(ChatTemplate::from_texts({}, "model"), nullptr);
  EXPECT_EQ(make(""), nullptr);
}

TEST(ChatTemplate, the_configuration_may_have_it) {
  const auto chat = make("", R"({"chat_template": "{{ messages[0].content }}!"})");
  EXPECT_EQ(chat->render({.messages = R"([{"role": "user", "content": "Hi"}])"}), "Hi!");
}

TEST(ChatTemplate, requests_with_tools_take_the_template_for_tools) {
  const std::string config =
      R"({"chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T{{ tools|length }}"}]})";
  const std::string messages = R"([{"role": "user", "content": ""}])";
  for (const char* source : {"", "D"}) {
    const auto chat = make(source, config);
    EXPECT_EQ(chat->render({.messages = messages}), "D");
    EXPECT_EQ(chat->render({.messages = messages, .tools = "[]"}), "T0");
  }
  EXPECT_EQ(make("F", config)->render({.messages = messages, .tools = "[]"}), "F") << "a file of its own replaces all";
}

TEST(ChatTemplate, special_tokens_are_variables) {
  const auto chat =
      make("{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ additional_special_tokens }}{{ tools }}",
           R"({"bos_token": {"content": "<b>"}, "eos_token": "<e>", "pad_token": null,
                             "additional_special_tokens": ["<x>", {"content": "<y>"}]})");
  const std::string messages = R"([{"role": "user"}])";
  EXPECT_EQ(chat->render({.messages = messages}), "<b><e>False['<x>', '<y>']None");
  EXPECT_EQ(chat->render({.messages = messages, .variables = R"({"bos_token": 1})"}), "1<e>False['<x>', '<y>']None");
}

TEST(ChatTemplate, a_template_that_is_not_valid_is_an_error_only_when_it_is_used) {
  const auto chat = make("{% if %}");
  EXPECT_THAT(refusal(*chat, {.messages = R"([{"role": "user"}])"}), HasSubstr("model: chat template:1:"));
}

TEST(ChatTemplate, requests_that_are_not_valid_are_refused) {
  const auto chat = make("x");
  const std::string messages = R"([{"role": "user"}])";
  EXPECT_THAT(refusal(*chat, {.messages = "[{]"}), HasSubstr("messages: not valid JSON at byte"));
  EXPECT_THAT(refusal(*chat, {.messages = "{}"}), HasSubstr("messages: must be an array"));
  EXPECT_THAT(refusal(*chat, {.messages = "[]"}), HasSubstr("at least one"));
  EXPECT_THAT(refusal(*chat, {.messages = "[1]"}), HasSubstr("messages[0]"));
  EXPECT_THAT(refusal(*chat, {.messages = std::string(100, '[')}), HasSubstr("nest deeper"));
  EXPECT_THAT(refusal(*chat, {.messages = messages, .tools = "{}"}), HasSubstr("tools: must be an array"));
  EXPECT_THAT(refusal(*chat, {.messages = messages, .tools = "[1]"}), HasSubstr("tools: must be an array"));
  EXPECT_THAT(refusal(*chat, {.messages = messages, .variables = "[]"}), HasSubstr("variables: must be an object"));
  EXPECT_THAT(refusal(*chat, {.messages = messages, .variables = R"({"tools": []})"}), HasSubstr("\"tools\""));
}

}  // namespace
}  // namespace upg
