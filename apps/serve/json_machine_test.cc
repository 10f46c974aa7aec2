#include "serve/json_machine.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

namespace upg::serve {
namespace {

bool accepts(std::string_view text) {
  JsonMachine machine;
  return machine.push(text) && machine.done();
}

TEST(JsonMachine, TakesObjectsAndNothingElse) {
  for (const char* text : {
           "{}",
           " {\n}",
           R"({"a": 1, "b": [true, false, null, {}], "c": {"d": "e"}})",
           R"({"n": [0, -0, 10, 1.5, -2.25e10, 3E-7, 0e+1]})",
           R"({"s": "\"\\\/\b\f\n\r\t\u00e9 café"})",
       })
    EXPECT_TRUE(accepts(text)) << text;
  for (const char* text : {"[]",
                           "1",
                           "\"a\"",
                           "{,}",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{\"a\":1,}",
                           "{a:1}",
                           "{\"a\":01}",
                           "{\"a\":1.}",
                           "{\"a\":.5}",
                           "{\"a\":+1}",
                           "{\"a\":tru}",
                           "{\"a\":\"\\x\"}",
                           "{\"a\":\"\n\"}",
                           "{\"a\":[1 2]}",
                           "{\"a\":1]",
                           "{} {",
                           "{\"a\": 1e}",
                           "{\"a\":\"\\u12g4\"}",
                           "{"})
    EXPECT_FALSE(accepts(text)) << text;
}

TEST(JsonMachine, WhatItLetsThroughIsJson) {
  std::mt19937 random(1);
  const std::string alphabet = "{}[]\",:\\ \n0123456789-+.eEtruefalsn ubx/";
  int finished = 0;
  for (int run = 0; run < 20000; ++run) {
    JsonMachine machine;
    std::string text;
    for (int i = 0; i < 400 && !machine.done(); ++i) {
      const char c = alphabet[random() % (text.size() > 30 ? 8 : alphabet.size())];
      JsonMachine copy = machine;
      if (!copy.push(c)) continue;
      machine = copy;
      text += c;
    }
    if (!machine.done()) continue;
    ++finished;
    try {
      EXPECT_TRUE(nlohmann::json::parse(text).is_object());
    } catch (const nlohmann::json::out_of_range&) {  // 7e999 is JSON, if no double
    } catch (const nlohmann::json::parse_error&) {
      FAIL() << text;
    }
  }
  EXPECT_GT(finished, 1000);
}

TEST(JsonMachine, SpaceAndDepthAreBounded) {
  EXPECT_FALSE(accepts("{" + std::string(100, ' ') + "}"));
  JsonMachine machine;
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100; ++i) deep += "[";
  EXPECT_FALSE(machine.push(deep));
}

TEST(JsonMachine, ACallCanBeClosedAndNothingMore) {
  JsonMachine machine;
  ASSERT_TRUE(machine.push(R"({"name": "f", "arguments": )"));
  machine.finish_with_object();
  for (const char* other : {"1", "[", "\"", "t"}) EXPECT_FALSE(JsonMachine(machine).push(other)) << other;
  ASSERT_TRUE(machine.push(R"({"a": 1, "b": [2]})"));
  EXPECT_FALSE(JsonMachine(machine).push(','));
  EXPECT_TRUE(machine.push('}'));
  EXPECT_TRUE(machine.done());
}

}  // namespace
}  // namespace upg::serve
