// Grammars over several vocabularies: what matches is let through token by token, whatever way it is cut; what does not
// is stopped; and whatever a random walk writes is valid.
#include "upg/grammar.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <regex>

#include "engine/grammar_cache.h"
#include "text/tokenizer_test_data.h"

namespace upg {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

struct Vocabulary {
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<GrammarCache> cache;
};

// Byte-level and byte-fallback vocabularies; large ones take long to compile for.
const Vocabulary& vocabulary(const std::string& name) {
  static std::map<std::string, Vocabulary> made;
  Vocabulary& v = made[name];
  if (!v.tokenizer) {
    const std::string json = name == "demo"    ? read_test_file("models/demo/tokenizer.json")
                             : name == "gpt-2" ? read_compact_tokenizer(name)
                                               : read_test_file("tests/data/tokenizers/" + name + ".tokenizer.json");
    v.tokenizer = Tokenizer::from_json(json, name);
    // As many logits as tokens, and some more: matrices are padded.
    v.cache = std::make_unique<GrammarCache>(*v.tokenizer, v.tokenizer->vocab_size() + 7, std::vector<int32_t>{});
  }
  return v;
}

class Walk {
 public:
  Walk(const Vocabulary& v, const GrammarSource& source)
      : tokenizer_(*v.tokenizer),
        compiled_(v.cache->find(source, {.seconds = 120})),
        matcher_(compiled_->matcher()),
        bits_((static_cast<size_t>(tokenizer_.vocab_size()) + 7 + 31) / 32) {}

  bool may(int32_t token) {
    matcher_->fill(bits_);
    return has(token);
  }
  bool complete() const { return matcher_->complete(); }

  /// Whether the text can be said, by the tokens that `cut` chooses of those that it begins with.
  bool says(std::string_view text, std::mt19937& random) {
    while (!text.empty()) {
      matcher_->fill(bits_);
      std::vector<int32_t> fitting;
      for (int32_t id = 0; id < tokenizer_.vocab_size(); ++id) {
        const std::string_view bytes = tokenizer_.token_bytes(id);
        if (tokenizer_.is_special(id) || bytes.empty() || !text.starts_with(bytes)) continue;
        fitting.push_back(id);
      }
      if (fitting.empty()) return false;
      const int32_t token = fitting[random() % fitting.size()];
      if (!has(token)) return false;
      EXPECT_TRUE(matcher_->accept(token));
      text.remove_prefix(tokenizer_.token_bytes(token).size());
    }
    return complete();
  }

  /// Some text that matches, of `most` tokens at most; empty where it has not ended then.
  std::string anything(std::mt19937& random, int most) {
    std::string text;
    for (int i = 0; i < most; ++i) {
      matcher_->fill(bits_);
      std::vector<int32_t> allowed;
      for (int32_t id = 0; id < tokenizer_.vocab_size() + 7; ++id)
        if (has(id)) allowed.push_back(id);
      if (matcher_->complete() && (allowed.empty() || random() % 4 == 0)) return text;
      if (allowed.empty()) ADD_FAILURE() << "a dead end after " << text;
      if (allowed.empty()) return {};
      // Short tokens more often: long ones fill strings.
      int32_t token = allowed[random() % allowed.size()];
      for (int k = 0; k < 6; ++k) {
        const int32_t other = allowed[random() % allowed.size()];
        if (tokenizer_.token_bytes(other).size() < tokenizer_.token_bytes(token).size()) token = other;
      }
      EXPECT_FALSE(tokenizer_.is_special(token));
      EXPECT_LT(token, tokenizer_.vocab_size()) << "padding is no text";
      EXPECT_TRUE(matcher_->accept(token));
      text += tokenizer_.token_bytes(token);
    }
    return {};
  }

 private:
  bool has(int32_t token) const {
    return (static_cast<uint32_t>(bits_[static_cast<size_t>(token) / 32]) >> (token % 32) & 1) != 0;
  }
  const Tokenizer& tokenizer_;
  std::shared_ptr<const grammar::Compiled> compiled_;
  std::unique_ptr<grammar::Matcher> matcher_;
  std::vector<int32_t> bits_;
};

class GrammarTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!grammars_missing().empty()) GTEST_SKIP() << grammars_missing();
  }
  static bool says(const GrammarSource& source, const std::string& text) {
    std::mt19937 random(7);
    bool first = true, said = false;
    for (int i = 0; i < 3; ++i) {  // cut in three ways, all of which must agree
      const bool now = Walk(vocabulary(GetParam()), source).says(text, random);
      EXPECT_TRUE(first || now == said) << text;
      said = now;
      first = false;
    }
    return said;
  }
};

class PatternTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!grammars_missing().empty()) GTEST_SKIP() << grammars_missing();
  }
};

TEST_P(GrammarTest, schemas_take_what_is_valid_and_nothing_else) {
  const struct {
    const char* schema;
    std::vector<const char*> valid, invalid;
  } cases[] = {
      {R"({"type": "object"})",
       {"{}", R"({"a": [1, 2.5e3, null, "x\n", {"b": true}]})"},
       {"[]", "1", "{", "{} ", R"({a: 1})"}},
      {R"({"type": "integer", "minimum": -5, "maximum": 120})",
       {"-5", "0", "99", "120"},
       {"-6", "121", "007", "1.5", "-0x"}},
      {R"({"type": "integer", "exclusiveMinimum": 2.5, "multipleOf": 3, "maximum": 12})",
       {"3", "12"},
       {"2", "4", "15"}},
      {R"({"type": "number", "minimum": 0.5, "exclusiveMaximum": 2})",
       {"0.5", "1", "1.999"},
       {"0.4", "2", "2.0", "-1"}},
      {R"({"type": "string", "minLength": 2, "maxLength": 4})",
       {R"("ab")", R"("äöüß")"},
       {R"("a")", R"("abcde")", "\"a\tb\""}},
      {R"({"type": "string", "pattern": "^[a-z]+-[0-9]{2}$"})",
       {R"("ab-12")"},
       {R"("ab-1")", R"("AB-12")", R"("-12")"}},
      {R"({"type": "string", "pattern": ".*"})", {R"("anything")"}, {R"("a"b")", R"("\")"}},
      {R"({"type": "string", "format": "date"})", {R"("2024-02-28")"}, {R"("2024-02-31")", R"("2024-2-1")"}},
      {R"({"enum": ["red", 1, null, {"a": [1]}]})",
       {R"("red")", "1", "null", R"({"a":[1]})"},
       {R"("re")", "2", R"("")"}},
      {R"({"const": "Größe \"x\" / \\"})", {R"("Größe \"x\" / \\")"}, {R"("Gr")"}},
      {R"({"type": ["string", "null"], "maxLength": 1})", {R"("a")", "null"}, {"1", R"("ab")"}},
      {R"({"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 2}]})",
       {"true", "[null]", "[null, null]"},
       {"[]", "[null,null,null]", "null"}},
      {R"({"type": "array", "prefixItems": [{"const": 1}, {"type": "string"}], "items": false, "minItems": 2})",
       {R"([1, "a"])"},
       {"[1]", R"([1,"a",2])", R"(["a",1])"}},
      {R"({"properties": {"b": {"type": "integer"}, "a": {"type": "string"}}, "required": ["a"]})",
       {R"({"b": 1, "a": ""})", R"({"a": "x"})"},
       {R"({"b": 1})", R"({"a": 1})", R"({"a": "", "c": 1})", R"({"a":"","a":""})"}},
      {R"({"type": "object", "properties": {"ab": {"type": "null"}}, "additionalProperties": {"type": "integer"}})",
       {R"({"ab": null, "a": 1, "abc": 2})", R"({"b": 1})", "{}"},
       {R"({"ab": 1})", R"({"a": null})", R"({"\u0061b": 1})"}},
      {R"({"type": "object", "propertyNames": {"pattern": "[a-z]+"}, "additionalProperties": {"type": "boolean"}})",
       {R"({"a": true, "b": false})", "{}"},
       {R"({"A": true})", R"({"a": 1})"}},
      {R"({"type": "object", "patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": false})",
       {R"({"x_": 1})"},
       {R"({"y": 1})", R"({"x_": ""})"}},
      {R"({"$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
           "required": ["next"]}}, "$ref": "#/$defs/node"})",
       {R"({"next": {"next": null}})"},
       {R"({"next": {}})", "null"}},
      {R"({"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}, "required": ["kind", "x"]},
           {"type": "object", "properties": {"kind": {"enum": ["b", "c"]}}, "required": ["kind"]}]})",
       {R"({"kind": "a", "x": 1})", R"({"kind": "c"})"},
       {R"({"kind": "a"})", R"({"kind": "d"})"}},
  };
  for (const auto& c : cases) {
    for (const char* text : c.valid)
      EXPECT_TRUE(says(GrammarSource::json_schema(c.schema), text)) << c.schema << " " << text;
    for (const char* text : c.invalid)
      EXPECT_FALSE(says(GrammarSource::json_schema(c.schema), text)) << c.schema << " " << text;
  }
}

TEST_P(GrammarTest, regular_expressions_grammars_and_parts) {
  EXPECT_TRUE(says(GrammarSource::regex("(ab|c)+[^x]\\t?"), "abcab\xc3\xa9"));
  EXPECT_TRUE(says(GrammarSource::regex("(ab|c)+[^x]\\t?"), "cy\t"));
  EXPECT_FALSE(says(GrammarSource::regex("(ab|c)+[^x]"), "abx"));
  const GrammarSource sums =
      GrammarSource::ebnf("root ::= term (\"+\" term)* # a sum\nterm ::= [0-9]+ | \"(\" root \")\"\n");
  EXPECT_TRUE(says(sums, "1+(22+3)+4"));
  EXPECT_FALSE(says(sums, "1+(22"));
  const GrammarSource call =
      GrammarSource::sequence({GrammarSource::choice({GrammarSource::literal("up "), GrammarSource::literal("upper ")}),
                               GrammarSource::json_schema(R"({"type": "boolean"})"), GrammarSource::literal("!")});
  EXPECT_TRUE(says(call, "upper true!"));
  EXPECT_TRUE(says(call, "up false!"));
  EXPECT_FALSE(says(call, "upp true!"));
}

// xgrammar's automata against another matcher, over patterns of all shapes.
TEST_F(PatternTest, strings_match_as_in_other_programs) {
  std::mt19937 random(5);
  const std::function<std::string(int)> any = [&](int depth) -> std::string {
    const auto part = [&] { return any(depth - 1); };
    switch (random() % (depth > 0 ? 8 : 3)) {
      case 0:
        return "a";
      case 1:
        return "[bc]";
      case 2:
        return "b";
      case 3:
        return part() + part();
      case 4:
        return "(" + part() + "|" + part() + ")";
      case 5:
        return "(" + part() + ")?";
      case 6:
        return "(" + part() + ")" + (random() % 2 ? "*" : "+");
      default:
        return "(" + part() + ")" + std::vector<const char*>{"{2}", "{1,2}", "{0,2}", "{2,}", "{0,}"}[random() % 5];
    }
  };
  int matched = 0;
  for (int i = 0; i < 150; ++i) {
    const std::string pattern = any(4);
    const std::regex other("^(?:" + pattern + ")$");
    const GrammarSource in_json = GrammarSource::json_schema(Json{{"type", "string"}, {"pattern", pattern}}.dump());
    const GrammarSource plain = GrammarSource::regex(pattern);
    for (int k = 0; k < 12; ++k) {
      std::string text;
      for (auto n = random() % 7; n > 0; --n) text += "abc"[random() % 3];
      const bool expected = std::regex_match(text, other);
      matched += expected ? 1 : 0;
      EXPECT_EQ(Walk(vocabulary("demo"), in_json).says("\"" + text + "\"", random), expected) << pattern << " " << text;
      EXPECT_EQ(Walk(vocabulary("demo"), plain).says(text, random), expected) << pattern << " " << text;
    }
  }
  EXPECT_GT(matched, 200);
}

TEST_F(PatternTest, numbers_lie_between_their_bounds) {
  std::mt19937 random(9);
  const auto hundredths = [&] { return static_cast<int>(random() % 4001) - 2000; };
  int integers = 0, numbers = 0;
  for (int i = 0; i < 60; ++i) {
    const auto [low, high] = std::minmax({hundredths(), hundredths()});
    const Json integer = {{"type", "integer"}, {"minimum", low}, {"exclusiveMaximum", high + 1}};
    const Json number = {{"type", "number"}, {"minimum", low / 100.0}, {"maximum", high / 100.0}};
    for (int k = 0; k < 12; ++k) {
      const int value = k < 4 ? std::vector{low, high, low - 1, high + 1}[static_cast<size_t>(k)] : hundredths();
      const bool within = low <= value && value <= high;
      EXPECT_EQ(
          Walk(vocabulary("demo"), GrammarSource::json_schema(integer.dump())).says(std::to_string(value), random),
          within)
          << integer << " " << value;
      const std::string text = Json(value / 100.0).dump();
      const bool said = Walk(vocabulary("demo"), GrammarSource::json_schema(number.dump())).says(text, random);
      EXPECT_TRUE(within || !said) << number << " " << text;
      integers += within ? 1 : 0;
      numbers += within && said ? 1 : 0;
    }
  }
  EXPECT_GT(numbers, integers * 9 / 10) << "hardly any of those within is refused";
}

TEST_P(GrammarTest, random_walks_end_in_valid_json) {
  const Vocabulary& v = vocabulary(GetParam());
  const GrammarSource source = GrammarSource::json_schema(R"({"type": "object", "properties": {
      "name": {"type": "string", "maxLength": 12}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
      "size": {"type": "number", "minimum": 0, "maximum": 10}}, "required": ["name", "size"]})");
  std::mt19937 random(1);
  int ended = 0;
  for (int i = 0; i < 40; ++i) {
    const std::string text = Walk(v, source).anything(random, 400);
    if (text.empty()) continue;
    ++ended;
    const Json json = Json::parse(text, nullptr, false);
    ASSERT_TRUE(json.is_object()) << Json(text).dump(-1, ' ', true, Json::error_handler_t::replace);
    EXPECT_TRUE(json.at("name").is_string()) << text;
    EXPECT_GE(json.at("size").get<double>(), 0) << text;
    EXPECT_LE(json.at("size").get<double>(), 10) << text;
    for (const auto& [key, value] : json.items()) EXPECT_THAT(key, MatchesRegex("name|tags|size"));
  }
  EXPECT_GT(ended, 20);
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, GrammarTest, ::testing::Values("demo", "llama-2-like", "gemma-like"),
                         [](const auto& of) {
                           std::string name = of.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// What `work` refuses, or an empty text.
std::string refusal(const GrammarSource& source, const GrammarLimits& limits = {}) {
  try {
    vocabulary("demo").cache->find(source, limits);
    return {};
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
}

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

using HostileGrammars = PatternTest;

TEST_F(HostileGrammars, are_refused_by_the_limit_that_they_go_over) {
  const auto schema = [](const std::string& text) { return refusal(GrammarSource::json_schema(text)); };
  EXPECT_THAT(schema(R"({"type": "array", "items": {}, "minItems": 1000000000})"),
              HasSubstr("\"minItems\" is 1000000000"));
  EXPECT_THAT(schema(repeated("{\"items\":", 1000) + "{}" + repeated("}", 1000)), HasSubstr("nests"));
  EXPECT_THAT(schema(repeated("[", 100000)), HasSubstr("nests"));
  EXPECT_THAT(schema("{\"const\": \"" + std::string(40000, 'a') + "\"}"), HasSubstr("32 KiB"));
  EXPECT_THAT(schema("{\"title\": \"" + std::string(300000, 'a') + "\"}"), HasSubstr("262144 are the limit"));
  EXPECT_THAT(schema(R"({"type": "string", "pattern": "((a{100}){100}){100}"})"), HasSubstr("too large"));
  EXPECT_THAT(refusal(GrammarSource::regex(repeated("(", 5000) + repeated(")", 5000))), HasSubstr("Nest"));
  EXPECT_THAT(refusal(GrammarSource::ebnf("root ::= root")), HasSubstr("no text of this model's tokens"));
  EXPECT_THAT(refusal(GrammarSource::ebnf("root ::= \"\xff\"")), HasSubstr("UTF-8"));
  EXPECT_THAT(refusal(GrammarSource::choice(std::vector<GrammarSource>(5000, GrammarSource::literal("a")))),
              HasSubstr("4096 parts"));
  EXPECT_EQ(refusal(GrammarSource::regex("a{1000000}")), "") << "counted, not multiplied out";
}

TEST_F(HostileGrammars, are_ended_when_they_take_too_long_or_too_much) {
  std::string twice = "root ::= r0\n";  // the empty text in 2^40 ways
  for (int i = 0; i < 40; ++i) twice += fmt::format("r{0} ::= r{1} r{1} | \"\"\n", i, i + 1);
  twice += "r40 ::= \"a\" | \"\"\n";
  EXPECT_THAT(refusal(GrammarSource::ebnf(twice), {.seconds = 1}), HasSubstr("longer than 1 s"));
  EXPECT_THAT(refusal(GrammarSource::json_schema(R"({"type": "string", "pattern": "[a-z]{30000}"})"), {.seconds = 1}),
              HasSubstr("longer than 1 s"));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_THAT(refusal(GrammarSource::ebnf("root ::= " + repeated("[^a-z] ", 2000)), {.memory = 1 << 20}),
              HasSubstr("1 MiB"));
#endif
  EXPECT_THAT(refusal(GrammarSource::ebnf("root ::= " + repeated("[a-z] ", 200)), {.compiled_bytes = 1000}),
              HasSubstr("when compiled"));
  EXPECT_EQ(refusal(GrammarSource::regex("still there")), "");
}

TEST_F(HostileGrammars, mistakes_are_told) {
  EXPECT_THAT(refusal(GrammarSource::regex("(a)\\1")), HasSubstr("Backreference"));
  EXPECT_THAT(refusal(GrammarSource::regex("(?=a)b")), HasSubstr("Lookahead"));
  EXPECT_THAT(refusal(GrammarSource::regex("a$b")), HasSubstr("cannot be enforced"));
  EXPECT_THAT(refusal(GrammarSource::regex("[a")), HasSubstr("Unclosed"));
  EXPECT_THAT(refusal(GrammarSource::regex("")), HasSubstr("empty"));
  EXPECT_THAT(refusal(GrammarSource::ebnf("root ::= x")), HasSubstr("\"x\" is not defined"));
  EXPECT_THAT(refusal(GrammarSource::ebnf("rule ::= \"x\"")), HasSubstr("root"));
  EXPECT_THAT(refusal(GrammarSource::json_schema(R"({"type": "string", "pattern": "\\bword"})")), HasSubstr("pattern"));
  EXPECT_THAT(refusal(GrammarSource::json_schema(R"({"type": "string", "pattern": "\""})")), HasSubstr("pattern"));
}

TEST_F(HostileGrammars, the_same_source_is_compiled_once) {
  GrammarCache& cache = *vocabulary("demo").cache;
  const auto first = cache.find(GrammarSource::regex("[a-c]+"), {});
  EXPECT_EQ(cache.find(GrammarSource::regex("[a-c]+"), {}), first);
  EXPECT_NE(cache.find(GrammarSource::regex("[a-d]+"), {}), first);
}

}  // namespace
}  // namespace upg
