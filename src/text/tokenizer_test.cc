// Whole tokenizers against ids from Hugging Face tokenizers, and their behaviour around special tokens.
#include "text/tokenizer.h"

#include <chrono>

#include "text/tokenizer_test_data.h"

namespace upg {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

void expect_vectors(const Tokenizer& tokenizer, const std::string& name) {
  const json root = json::parse(read_test_file("tests/data/tokenizers/" + name + ".vectors.json"));
  ASSERT_GE(root["vectors"].size(), 300u);
  for (const json& vector : root["vectors"]) {
    const std::string text = vector["text"];
    const Ids ids = vector["ids"].get<Ids>();
    EXPECT_EQ(tokenizer.encode(text), ids) << vector.dump();
    EXPECT_EQ(tokenizer.decode(ids), vector["decoded"].get<std::string>()) << vector.dump();
  }
}

TEST(Tokenizer, encodes_and_decodes_as_hugging_face_does_with_the_demo_vocabulary) {
  expect_vectors(*Tokenizer::from_json(read_test_file("models/demo/tokenizer.json"), "demo"), "demo");
}

TEST(Tokenizer, encodes_and_decodes_as_hugging_face_does_with_the_phi_4_vocabulary) {
  expect_vectors(*Tokenizer::from_json(read_compact_tokenizer("phi-4"), "phi-4"), "phi-4");
}

TEST(Tokenizer, encodes_and_decodes_as_hugging_face_does_with_the_gpt_2_vocabulary) {
  expect_vectors(*Tokenizer::from_json(read_compact_tokenizer("gpt-2"), "gpt-2"), "gpt-2");
}

TEST(Tokenizer, encodes_and_decodes_as_hugging_face_does_with_vocabularies_of_sentencepiece_families) {
  for (const std::string name : {"gemma-like", "llama-2-like", "t5-like"}) {
    SCOPED_TRACE(name);
    const std::string text = read_test_file("tests/data/tokenizers/" + name + ".tokenizer.json");
    expect_vectors(*Tokenizer::from_json(text, name), name);
  }
}

TEST(Tokenizer, knows_its_tokens) {
  const auto tokenizer = tokenizer_of(small_tokenizer());
  EXPECT_EQ(tokenizer->vocab_size(), 260);
  EXPECT_EQ(tokenizer->token_id("<s>"), 259);
  EXPECT_EQ(tokenizer->token_id("ab"), 256);
  EXPECT_EQ(tokenizer->token_id("nothing"), std::nullopt);
  EXPECT_EQ(tokenizer->token_bytes(258), " a");
  EXPECT_EQ(tokenizer->token_bytes(0xff), "\xff");
  EXPECT_EQ(tokenizer->token_bytes(259), "<s>");
  for (const int32_t unknown : {-1, 260, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tokenizer->token_bytes(unknown), "");
    EXPECT_FALSE(tokenizer->is_special(unknown));
  }
  EXPECT_TRUE(tokenizer->is_special(259));
  EXPECT_FALSE(tokenizer->is_special(256));
}

TEST(Tokenizer, leaves_special_tokens_as_text_when_told_to) {
  const auto tokenizer = tokenizer_of(small_tokenizer());
  EXPECT_EQ(tokenizer->encode("ab<s>abc"), (Ids{256, 259, 257}));
  EXPECT_EQ(tokenizer->encode("ab<s>", true, false), (Ids{256, '<', 's', '>'}));
}

TEST(Tokenizer, skips_special_and_unknown_tokens_in_decoding) {
  const auto tokenizer = tokenizer_of(small_tokenizer());
  EXPECT_EQ(tokenizer->decode(Ids{259, 256, 100000, -7}), "<s>ab");
  EXPECT_EQ(tokenizer->decode(Ids{259, 256, 259}, true), "ab");
}

TEST(Tokenizer, puts_the_template_around_the_text) {
  json root = small_tokenizer();
  root["post_processor"] = json::parse(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"}, {
      "type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "end"}}],
      "special_tokens": {"<s>": {"ids": [259]}, "end": {"ids": [1, 2]}}}]})");
  const auto tokenizer = tokenizer_of(root);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->encode("ab"), (Ids{259, 256, 1, 2}));
  EXPECT_EQ(tokenizer->encode(""), (Ids{259, 1, 2}));
  EXPECT_EQ(tokenizer->encode("ab", false), (Ids{256}));
  EXPECT_FALSE(tokenizer_of(small_tokenizer())->adds_bos());
}

TEST(Tokenizer, reads_ill_formed_text_as_replacement_characters) {
  const auto tokenizer = tokenizer_of(small_tokenizer());
  const Ids replacement = {0xef, 0xbf, 0xbd};
  for (const char* text : {"\xff", "\x80", "\xc3", "\xe2\x82", "\xf0\x9f\xa6"})
    EXPECT_EQ(tokenizer->encode(text), replacement) << text;
  EXPECT_EQ(tokenizer->encode("\xed\xa0\x80").size(), 9u);  // a surrogate is three errors
  EXPECT_EQ(tokenizer->encode(std::string_view("a\0b", 3)), (Ids{'a', 0, 'b'}));
}

TEST(Tokenizer, takes_white_space_and_words_next_to_added_tokens_into_account) {
  json root = small_tokenizer();
  const auto add = [&](int id, const char* content, const char* option) {
    root["added_tokens"].push_back({{"id", id}, {"content", content}, {"normalized", false}, {option, true}});
  };
  add(260, "[L]", "lstrip");
  add(261, "[R]", "rstrip");
  add(262, "word", "single_word");
  const auto tokenizer = tokenizer_of(root);
  EXPECT_EQ(tokenizer->encode("b \t[L] b"), (Ids{'b', 260, ' ', 'b'}));
  EXPECT_EQ(tokenizer->encode("b [R] \u00a0 b"), (Ids{'b', ' ', 261, 'b'}));
  EXPECT_EQ(tokenizer->encode("[R]  [L]"), (Ids{261, 260}));
  EXPECT_EQ(tokenizer->encode("(word)"), (Ids{'(', 262, ')'}));
  EXPECT_EQ(tokenizer->encode("word_"), (Ids{'w', 'o', 'r', 'd', '_'}));
}

TEST(Tokenizer, prefers_the_longest_of_the_added_tokens_that_start_first) {
  json root = small_tokenizer();
  const std::pair<int, const char*> tokens[] = {{'<', "<"}, {261, "<<"}, {262, "<<>"}, {263, "<<>>>"}, {'>', ">"}};
  for (const auto& [id, content] : tokens)
    root["added_tokens"].push_back({{"id", id}, {"content", content}, {"normalized", false}});
  EXPECT_EQ(tokenizer_of(root)->encode("<<<>>x<<>>>"), (Ids{261, '<', '>', '>', 'x', 263}));
}

TEST(Tokenizer, composes_characters_with_nfc) {
  json root = small_tokenizer();
  root["normalizer"] = {{"type", "NFC"}};
  const auto tokenizer = tokenizer_of(root);
  EXPECT_EQ(tokenizer->encode("e\u0301"), (Ids{0xc3, 0xa9}));
  // U+1ABF came after the Unicode version of the NFC that tokenizers uses: nothing reorders across it.
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a\u0301\u1abf\u0323")), "\u00e1\u1abf\u0323");
}

TEST(Tokenizer, sorts_a_million_marks_quickly) {
  json root = small_tokenizer();
  root["normalizer"] = {{"type", "NFC"}};
  std::string text = "a";
  std::string lower;
  std::string upper;
  for (int i = 0; i < 300'000; ++i) {
    text += "\u0301\u0323";
    lower += "\u0323";
    upper += "\u0301";
  }
  const auto tokenizer = tokenizer_of(root);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), "\u1ea1" + lower.substr(2) + upper);
}

TEST(Tokenizer, encodes_a_million_characters_in_one_piece_quickly) {
  const auto start = std::chrono::steady_clock::now();
  for (const std::string name : {"gemma-like", "llama-2-like", "t5-like"}) {
    const auto tokenizer =
        Tokenizer::from_json(read_test_file("tests/data/tokenizers/" + name + ".tokenizer.json"), "t");
    for (const char* unit : {"a", "the history of ", "\u4e00", "\U0001f600", "e\u0301", "<s>"}) {
      std::string text = "x";
      while (text.size() < 1'000'000) text += unit;
      const std::string decoded = tokenizer->decode(tokenizer->encode(text, false, false));
      if (name != "t5-like") {
        EXPECT_EQ(decoded, text) << name << unit;
      }
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));  // quadratic work takes hours
}

TEST(Tokenizer, encodes_a_million_equal_characters_quickly) {
  const auto tokenizer = Tokenizer::from_json(read_test_file("models/demo/tokenizer.json"), "demo");
  const auto start = std::chrono::steady_clock::now();
  for (const char* unit : {"a", " ", "ab", "\n", "!", "7", "\u00e9", " \t", "<|im_start"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text) << unit;
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));  // quadratic work takes hours
}

}  // namespace
}  // namespace upg
