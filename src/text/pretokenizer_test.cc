#include "text/pretokenizer.h"

#include "text/pretokenizer_regex.h"
#include "text/tokenizer_test_data.h"

namespace upg {
namespace {

using nlohmann::json;
using Parts = std::vector<std::string>;

Parts split(const json& pretokenizer, const std::string& text) {
  Pieces pieces(text);
  make_pretokenizer(pretokenizer, "pre_tokenizer")->split(pieces);
  Parts parts;
  for (size_t i = 0; i < pieces.spans.size(); ++i) parts.emplace_back(pieces.piece(i));
  return parts;
}

json splitter(const std::string& regex, const std::string& behavior = "Removed", bool invert = true) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", behavior}, {"invert", invert}};
}

Parts matches(const std::string& regex, const std::string& text) { return split(splitter(regex), text); }

ErrorCode regex_error(const std::string& regex) {
  try {
    make_pretokenizer(splitter(regex), "pre_tokenizer");
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("pre_tokenizer.pattern.Regex"), std::string::npos) << error.what();
    return error.code();
  }
  ADD_FAILURE() << "accepted: " << regex;
  return ErrorCode::kIo;
}

TEST(PreTokenizer, split_behaviors_are_those_of_hugging_face) {
  const std::pair<const char*, Parts> expected[] = {
      {"Removed", {"The", "final", "countdown"}},
      {"Isolated", {"The", "-", "final", "-", "-", "countdown"}},
      {"MergedWithPrevious", {"The-", "final-", "-", "countdown"}},
      {"MergedWithNext", {"The", "-final", "-", "-countdown"}},
      {"Contiguous", {"The", "-", "final", "--", "countdown"}},
  };
  for (const auto& [behavior, parts] : expected) {
    json pretokenizer = {{"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", behavior}, {"invert", false}};
    EXPECT_EQ(split(pretokenizer, "The-final--countdown"), parts) << behavior;
    EXPECT_EQ(split(splitter("-", behavior, false), "The-final--countdown"), parts) << behavior;
  }
}

TEST(PreTokenizer, byte_level_splits_maps_and_adds_a_space) {
  EXPECT_EQ(split({{"type", "ByteLevel"}}, "it's 12\u00e9"), (Parts{"\u0120it", "'s", "\u012012", "\u00c3\u00a9"}));
  EXPECT_EQ(split({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}, "a b"),
            (Parts{"a\u0120b"}));
}

TEST(PreTokenizer, digits_and_punctuation_split) {
  EXPECT_EQ(split({{"type", "Digits"}, {"individual_digits", true}}, "a12b\u00bd"),
            (Parts{"a", "1", "2", "b", "\u00bd"}));
  EXPECT_EQ(split({{"type", "Digits"}, {"individual_digits", false}}, "a12b\u0663"), (Parts{"a", "12", "b", "\u0663"}));
  EXPECT_EQ(split({{"type", "Punctuation"}}, "a+!b"), (Parts{"a", "+", "!", "b"}));
  EXPECT_EQ(split({{"type", "Punctuation"}, {"behavior", "Contiguous"}}, "a!?b"), (Parts{"a", "!?", "b"}));
}

TEST(PreTokenizer, steps_of_a_sequence_see_what_the_steps_before_made) {
  // U+00B2 stands for a byte after ByteLevel, and is a digit.
  const json sequence = {{"type", "Sequence"},
                         {"pretokenizers",
                          {{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}},
                           {{"type", "Digits"}, {"individual_digits", true}}}}};
  EXPECT_EQ(split(sequence, "\u0432"), (Parts{"\u00d0", "\u00b2"}));
}

TEST(Regex, sets_are_those_of_oniguruma) {
  EXPECT_EQ(matches("\\s", "\u180e\u0085 \u3000\u200b"), (Parts{"\u0085", " ", "\u3000"}));
  EXPECT_EQ(matches("\\S", "\u180e\u0085"), (Parts{"\u180e"}));
  EXPECT_EQ(matches("[^\\s]", "\u180e\u0085"), (Parts{"\u180e"}));
  EXPECT_EQ(matches("\\p{L}", "a\u1c89\U00031350\U000105c01"), (Parts{"a", "\u1c89", "\U00031350", "\U000105c0"}));
  EXPECT_EQ(matches("[^\\p{L}]", "\u1c891"), (Parts{"1"}));
  EXPECT_EQ(matches("\\p{N}", "\U00011f501"), (Parts{"\U00011f50", "1"}));
  EXPECT_EQ(matches("\\w+", "a\u0301_\u00b2 -"), (Parts{"a\u0301_\u00b2"}));
  EXPECT_EQ(matches("[\\w]+", "a\u0301_\u00b2"), (Parts{"a\u0301_"}));
  EXPECT_EQ(matches("\\h+", "xFf0g"), (Parts{"Ff0"}));
  EXPECT_EQ(matches("\\p{Han}", "\u3001\u4e00\U0002ebf0"), (Parts{"\u4e00", "\U0002ebf0"}));
}

TEST(Regex, complements_in_classes_keep_their_meaning) {
  EXPECT_EQ(matches("[^\\S\\n]", " \n\ta"), (Parts{" ", "\t"}));
  EXPECT_EQ(matches("[\\P{L}x]", "ax1\u1c89"), (Parts{"x", "1"}));
  EXPECT_EQ(matches("[^\\P{L}\\p{Lu}b]", "aAb1"), (Parts{"a"}));
  EXPECT_EQ(matches("[\\P{L}\\P{N}]", "a1"), (Parts{"a", "1"}));
  EXPECT_EQ(matches("[\\S^]", "^ "), (Parts{"^"}));
  EXPECT_EQ(matches("[\\s-]", "a- "), (Parts{"-", " "}));
}

TEST(Regex, empty_matches_cut_without_looping) {
  EXPECT_EQ(split(splitter("", "Isolated", false), "a\u00e9b"), (Parts{"a", "\u00e9", "b"}));
  EXPECT_EQ(split(splitter("x*", "Isolated", false), "axxb"), (Parts{"a", "xx", "b"}));
  EXPECT_EQ(split(splitter("(?<=1)(?=a)", "Isolated", false), "1a1a"), (Parts{"1", "a1", "a"}));
}

TEST(Regex, constructs_that_would_mean_something_else_are_refused) {
  for (const char* regex :
       {"\\bx",        "[a-z&&[^aeiou]]", "[[a]b]", "[[:alpha:]]", "(?<name>x)", "(?m:.)", "a(?i)b|c",
        "x{2}+",       "x{,3}",           "\\1",    "\\K",         "\\R",        "\\X",    "\\p{Klingon}",
        "\\p{letter}", "x{2}?",           "[]a]",   "[+-\\s]",     "\\xff",      "(?R)"})
    EXPECT_EQ(regex_error(regex), ErrorCode::kUnsupported) << regex;
  for (const char* regex :
       {"(", ")", "[a", "\\", "\\p{L", "\\p", "*", "(*LIMIT_MATCH=1)", "\\x{110000}", "\\ud800", "[b-a]", "\\x"})
    EXPECT_EQ(regex_error(regex), ErrorCode::kInvalidFile) << regex;
  EXPECT_EQ(regex_error(std::string(70000, 'a')), ErrorCode::kUnsupported);
  EXPECT_EQ(regex_error(std::string(5000, '(') + std::string(5000, ')')), ErrorCode::kInvalidFile);
}

TEST(Regex, patterns_of_exponential_work_give_an_error) {
  const std::string text(60, 'a');
  EXPECT_THROW(matches("(a|aa|aaa)+[^\\p{L}]", text), Error);
  EXPECT_THROW(matches("(a+)+[^\\p{L}]", text), Error);
}

TEST(Regex, long_runs_do_not_reach_a_limit) {
  const std::string spaces(20'000'000, ' ');
  EXPECT_EQ(matches("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", spaces + "x").size(), 2u);
}

TEST(PreTokenizer, a_second_byte_level_is_refused) {
  const json byte_level = {{"type", "ByteLevel"}};
  EXPECT_THROW(split({{"type", "Sequence"}, {"pretokenizers", {byte_level, byte_level}}}, "a"), Error);
}

}  // namespace
}  // namespace upg
