#include "serve/tool_calls.h"

#include <gtest/gtest.h>

namespace upg::serve {
namespace {

const std::set<std::string> kTools = {"weather", "add"};

// All at once, and letter by letter: a stream may be cut anywhere.
std::pair<std::string, std::vector<ToolCall>> parse(std::string_view text, size_t piece) {
  ToolCallParser parser(kTools);
  std::pair<std::string, std::vector<ToolCall>> all;
  const auto take = [&](ToolCallParser::Output out) {
    all.first += out.content;
    all.second.insert(all.second.end(), out.calls.begin(), out.calls.end());
  };
  for (size_t at = 0; at < text.size(); at += piece) take(parser.push(text.substr(at, piece)));
  take(parser.finish());
  EXPECT_EQ(parser.calls(), all.second.size());
  return all;
}

struct Expected {
  const char* text;
  const char* content;
  std::vector<std::pair<const char*, const char*>> calls;
};

void expect(const Expected& expected) {
  for (size_t piece : {size_t{1}, size_t{3}, size_t{7}, std::string_view(expected.text).size()}) {
    const auto [content, calls] = parse(expected.text, piece);
    EXPECT_EQ(content, expected.content) << expected.text << " in pieces of " << piece;
    ASSERT_EQ(calls.size(), expected.calls.size()) << expected.text << " in pieces of " << piece;
    for (size_t i = 0; i < calls.size(); ++i) {
      EXPECT_EQ(calls[i].name, expected.calls[i].first);
      EXPECT_EQ(calls[i].arguments, expected.calls[i].second);
    }
  }
}

TEST(ToolCalls, EveryFormatOfTheListIsRead) {
  const std::vector<std::pair<const char*, const char*>> call = {{"weather", R"({"city":"Rome"})"}};
  expect({"<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>", "", call});
  expect({R"([TOOL_CALLS][{"name": "weather", "arguments": {"city": "Rome"}}])", "", call});
  expect({R"([TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Rome"}, "id": "x"}])", "", call});
  expect({R"(functools[{"name": "weather", "arguments": {"city": "Rome"}}])", "", call});
  expect({R"(<|tool_call|>[{"name": "weather", "arguments": {"city": "Rome"}}]<|/tool_call|>)", "", call});
  expect({R"({"name": "weather", "parameters": {"city": "Rome"}})", "", call});
  expect({R"(<|python_tag|>{"name": "weather", "parameters": {"city": "Rome"}})", "", call});
}

TEST(ToolCalls, SeveralCallsComeInTheirOrder) {
  const std::vector<std::pair<const char*, const char*>> calls = {{"weather", "{}"}, {"add", R"({"a":1})"}};
  expect(
      {"<tool_call>{\"name\": \"weather\", \"arguments\": {}}</tool_call>\n"
       "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1}}</tool_call>",
       "", calls});
  expect({R"([TOOL_CALLS][{"name": "weather", "arguments": {}}, {"name": "add", "arguments": {"a": 1}}])", "", calls});
  expect({R"({"name": "weather", "parameters": {}}; {"name": "add", "parameters": {"a": 1}})", "", calls});
}

TEST(ToolCalls, TextBeforeACallIsContentWithoutTheSpaceBetween) {
  expect({"Let me see.\n\n<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>",
          "Let me see.",
          {{"add", "{}"}}});
}

TEST(ToolCalls, BracesAndQuotesInStringsDoNotEndACall) {
  expect({R"(<tool_call>{"name": "add", "arguments": {"a": "}]\"{</tool_call>"}}</tool_call>)",
          "",
          {{"add", R"({"a":"}]\"{</tool_call>"})"}}});
}

TEST(ToolCalls, ArgumentsMayBeTextOrMissing) {
  expect({R"(<tool_call>{"name": "add", "arguments": "{\"a\": 1}"}</tool_call>)", "", {{"add", R"({"a": 1})"}}});
  expect({R"(<tool_call>{"name": "add"}</tool_call>)", "", {{"add", "{}"}}});
}

TEST(ToolCalls, WhatIsNoCallIsContent) {
  for (const char* text : {
           "Hello, world.\n",
           "a < b and <tool is a word",
           "{\"name\": \"unknown\", \"parameters\": {}}",
           "{\"answer\": 42}",
           "{ no JSON at all }",
           "The functools module of Python",
           "functools[1, 2]",
           "<tool_call>soon",
           "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\"",
           "<tool_call>{\"name\": \"add\", \"arguments\": 3}</tool_call>",
           "  spaced  ",
       })
    expect({text, text, {}});
}

TEST(ToolCalls, WithoutToolsNothingIsLookedFor) {
  ToolCallParser parser({});
  EXPECT_EQ(parser.push("<tool_call>{").content, "<tool_call>{");
  EXPECT_EQ(parser.finish().content, "");
}

TEST(ToolCalls, OrdinaryTextIsNotHeldBack) {
  ToolCallParser parser(kTools);
  EXPECT_EQ(parser.push("Hello").content, "Hello");
  EXPECT_EQ(parser.push(" wor").content, " wor");
}

}  // namespace
}  // namespace upg::serve
