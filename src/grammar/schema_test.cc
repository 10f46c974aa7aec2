// Which schemas are taken, what becomes of them, and how the others are refused.
#include "grammar/schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

#include "grammar/pattern.h"
#include "upg/error.h"

namespace upg::grammar {
namespace {

using ::testing::HasSubstr;

std::string no_fault(const std::string&) { return {}; }

Schema normal(const std::string& text, bool relaxed = false) { return normal_schema(text, relaxed, no_fault); }

std::string refusal(const std::string& text) {
  try {
    return "taken: " + normal(text).dump();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
}

TEST(Schema, keywords_that_cannot_be_enforced_are_refused_by_name_and_place) {
  for (const char* keyword : {"not", "if", "dependentRequired", "contains", "unevaluatedItems", "nullable",
                              "$dynamicRef", "contentEncoding", "minimun"}) {
    const std::string text = R"({"type": "object", "properties": {"a": {"type": "array", "items": {")" +
                             std::string(keyword) + R"(": {}}}}})";
    const std::string said = refusal(text);
    EXPECT_THAT(said, HasSubstr("#/properties/a/items")) << keyword;
    EXPECT_THAT(said, HasSubstr("\"" + std::string(keyword) + "\"")) << keyword;
    EXPECT_NO_THROW(normal(text, /*relaxed=*/true)) << keyword;
  }
}

TEST(Schema, keywords_that_do_not_go_together_are_refused) {
  for (const auto& [text, word] : std::vector<std::pair<const char*, const char*>>{
           {R"({"$ref": "#/$defs/a", "minimum": 1, "$defs": {"a": {"type": "integer"}}})", "minimum"},
           {R"({"enum": [1, 2], "maximum": 1})", "maximum"},
           {R"({"anyOf": [{"type": "null"}], "type": "object"})", "type"},
           {R"({"allOf": [{"type": "object"}, {"required": ["a"]}]})", "allOf"},
           {R"({"type": "string", "pattern": "a", "minLength": 2})", "minLength"},
           {R"({"type": "string", "format": "date", "maxLength": 2})", "maxLength"},
           {R"({"type": "string", "format": "isbn"})", "isbn"},
           {R"({"type": "number", "multipleOf": 0.5})", "multipleOf"},
           {R"({"type": "number", "minimum": 0.12345678})", "minimum"},
           {R"({"type": "integer", "multipleOf": 7, "minimum": 0})", "multipleOf"},
           {R"({"type": "array", "uniqueItems": true})", "uniqueItems"},
           {R"({"type": "object", "minProperties": 2})", "minProperties"},
           {R"({"properties": {"a": {}}, "patternProperties": {"b": {}}})", "patternProperties"},
           {R"({"properties": {"a": {}}, "propertyNames": {"pattern": "a"}})", "propertyNames"},
           {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "oneOf"},
           {R"({"oneOf": [{"properties": {"a": {}}}, {"type": "string"}]})", "oneOf"},
       }) {
    EXPECT_THAT(refusal(text), HasSubstr("\"" + std::string(word))) << text;
    EXPECT_THAT(refusal(text), HasSubstr("cannot be enforced")) << text;
  }
}

TEST(Schema, what_nothing_satisfies_is_refused) {
  for (const char* text :
       {"false",
        "3",
        R"({"type": "text"})",
        R"({"type": []})",
        R"({"enum": []})",
        R"({"enum": ["a"], "type": "integer"})",
        R"({"type": "integer", "minimum": 2, "maximum": 1})",
        R"({"type": "integer", "exclusiveMinimum": 1, "maximum": 1.5})",
        R"({"type": "string", "minLength": 3, "maxLength": 2})",
        R"({"type": "array", "items": false, "minItems": 1})",
        R"({"type": "object", "required": ["a"], "additionalProperties": false})",
        R"({"type": "object", "properties": {"a": {}}, "minProperties": 2, "additionalProperties": false})",
        R"({"$ref": "#"})",
        R"({"$ref": "#/$defs/x"})",
        R"({"$ref": "http://example.com/schema"})",
        R"({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"})",
        R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})",
        R"({"type": "array", "items": {"$ref": "#"}, "minItems": 1})",
        R"({"minLength": -1})",
        R"({"minLength": "2"})",
        R"({"const": 1e400})",
        R"({"enum": [18446744073709551615]})"})
    EXPECT_THROW(normal(text), Error) << text;
}

TEST(Schema, notes_are_left_out_and_types_that_are_not_told_follow_from_the_keywords) {
  EXPECT_EQ(
      normal(R"({"title": "T", "description": "d", "default": 1, "examples": [2], "x-order": 1, "type": "integer"})"),
      Schema::parse(R"({"type": "integer"})"));
  EXPECT_EQ(normal("true"), Schema::object());
  EXPECT_EQ(normal(R"({"minLength": 1})")["type"], "string");
  EXPECT_EQ(normal(R"({"minimum": 1, "required": ["a"]})")["anyOf"].size(), 2u);
  EXPECT_EQ(normal(R"({"type": ["integer", "number"]})"), Schema::parse(R"({"type": "number"})"));
  EXPECT_EQ(normal(R"({"enum": ["a", 1, null], "type": ["string", "null"]})"),
            Schema::parse(R"({"enum": ["a", null]})"));
  EXPECT_EQ(normal(R"({"type": "integer", "minimum": 0.5, "exclusiveMaximum": 9})"),
            Schema::parse(R"({"type": "integer", "minimum": 1, "maximum": 8})"));
}

TEST(Schema, bounds_of_numbers_are_decimals) {
  for (const char* bound : {"16.07", "0.1", "-0.000001", "123456.654321", "0", "-1000000000"})
    EXPECT_TRUE(normal(R"({"type": "number", "minimum": )" + std::string(bound) + "}").contains("minimum")) << bound;
}

TEST(Schema, required_properties_are_there_even_where_they_are_not_described) {
  const Schema schema = normal(R"({"type": "object", "properties": {"b": {"type": "null"}}, "required": ["b", "a"]})");
  EXPECT_EQ(schema["properties"].size(), 2u);
  EXPECT_EQ(schema["properties"]["a"], Schema::object());
  EXPECT_EQ(schema["required"].size(), 2u);
}

TEST(Schema, references_are_followed_wherever_they_point) {
  const Schema schema =
      normal(R"({"properties": {"a/b": {"type": "null"}, "c": {"$ref": "#/properties/a~1b"}, "d": {"$ref": "#"}}})");
  EXPECT_EQ(schema["$defs"].size(), 2u);
  EXPECT_EQ(schema["$defs"]["d0"], Schema::parse(R"({"type": "null"})"));
  EXPECT_EQ(schema["$defs"]["d1"]["properties"]["d"]["$ref"], "#/$defs/d1");
}

TEST(Schema, one_of_is_taken_where_its_schemas_exclude_each_other) {
  for (const char* text :
       {R"({"oneOf": [{"type": "string"}, {"type": ["integer", "null"]}, {"type": "object"}]})",
        R"({"oneOf": [{"const": "a"}, {"enum": ["b", 1]}, {"type": "boolean"}]})",
        R"({"$defs": {"A": {"type": "object", "properties": {"t": {"const": "a"}}, "required": ["t"]},
             "B": {"type": "object", "properties": {"t": {"enum": ["b"]}}, "required": ["t"]}},
             "oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}], "discriminator": {"propertyName": "t"}})"})
    EXPECT_TRUE(normal(text).contains("anyOf")) << text;
}

TEST(Pattern, counts_are_written_as_xgrammar_reads_them) {
  EXPECT_EQ(exact_pattern("^ab?c$"), "^ab{0,1}c$");
  EXPECT_EQ(exact_pattern("(?:a[b?]{2,})??\\?\\x41?"), "(?:a[b?]{1}[b?]+){0,1}\\?\\x41{0,1}");
  EXPECT_EQ(exact_pattern("(a|(b)){0,}|c{1,}d{2,3}?e{4}"), "(a|(b))*|c+d{2,3}e{4,4}");
  for (const char* odd : {"", "?", "(", ")", "a)?", "[", "[a", "\\", "\\x4", "\\u{", "a{", "a{2", "a{2,", "(?", "{2}"})
    EXPECT_NO_THROW(exact_pattern(odd)) << odd;
  EXPECT_THROW(exact_pattern("((((a{9,}){9,}b{9,}){9,}c{9,}){9,}[a-z]{9,}){9,}x{0}"), Error);
  std::string nested = "a";
  for (int i = 0; i < 30; ++i) nested = "(" + nested + "){2,}";
  EXPECT_THROW(exact_pattern(nested), Error);
}

TEST(KeyPattern, matches_all_keys_but_those_that_are_taken) {
  const std::vector<std::string> taken = {"a", "ab", "abcd", "b-c", "]^", ""};
  const std::regex pattern(pattern_of_other_keys(taken));
  for (const std::string& key : taken) EXPECT_FALSE(std::regex_match(key, pattern)) << key;
  for (const std::string key : {"abc", "abcde", "c", "aa", "b", "b-", "b-cd", "]", "]^^", "A", " ", "~"})
    EXPECT_TRUE(std::regex_match(key, pattern)) << key;
  EXPECT_FALSE(std::regex_match("\"", pattern));
  EXPECT_FALSE(std::regex_match("x\\", pattern));
}

}  // namespace
}  // namespace upg::grammar
