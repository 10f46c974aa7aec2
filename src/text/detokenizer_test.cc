#include "text/detokenizer.h"

#include "text/tokenizer_test_data.h"

namespace upg {
namespace {

using nlohmann::json;

bool is_valid_utf8(const std::string& text) {
  std::string repaired;
  append_repaired_utf8(repaired, text, false);
  return repaired == text;
}

TEST(StreamDetokenizer, never_splits_a_character) {
  const auto tokenizer = Tokenizer::from_json(read_test_file("models/demo/tokenizer.json"), "demo");
  const json root = json::parse(read_test_file("tests/data/tokenizers/demo.vectors.json"));
  for (const json& vector : root["vectors"]) {
    StreamDetokenizer stream(*tokenizer, false);
    std::string text;
    for (const json& id : vector["ids"]) {
      const std::string part = stream.push(id.get<int32_t>());
      EXPECT_TRUE(is_valid_utf8(part));
      text += part;
    }
    text += stream.finish();
    EXPECT_EQ(text, vector["decoded"].get<std::string>());
  }
}

TEST(StreamDetokenizer, holds_a_character_back_until_its_last_byte) {
  const auto tokenizer = tokenizer_of(small_tokenizer());
  StreamDetokenizer stream(*tokenizer);
  EXPECT_EQ(stream.push(0xf0), "");
  EXPECT_EQ(stream.push(0x9f), "");
  EXPECT_EQ(stream.push(0xa6), "");
  EXPECT_EQ(stream.push(0x99), "\U0001f999");
  EXPECT_EQ(stream.push(256), "ab");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDetokenizer, replaces_ill_formed_bytes_as_soon_as_they_are_known_to_be) {
  const auto tokenizer = tokenizer_of(small_tokenizer());
  StreamDetokenizer stream(*tokenizer);
  EXPECT_EQ(stream.push(0xff), "\ufffd");
  EXPECT_EQ(stream.push(0xe2), "");
  EXPECT_EQ(stream.push('x'), "\ufffdx");
  EXPECT_EQ(stream.push(0xe2), "");
  EXPECT_EQ(stream.push(0x82), "");
  EXPECT_EQ(stream.finish(), "\ufffd");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDetokenizer, gives_for_any_bytes_what_decoding_at_once_gives) {
  const auto tokenizer = tokenizer_of(small_tokenizer());
  uint32_t state = 1;
  for (int round = 0; round < 2000; ++round) {
    std::vector<int32_t> ids;
    std::string bytes;
    for (int i = 0; i < 12; ++i) {
      state = state * 1664525 + 1013904223;
      constexpr int kBytes[] = {0xf0, 0x9f, 0xa6, 0x99, 0xe2, 0x82, 0xac, 0xc3,
                                0xa9, 'a',  0xff, 0xed, 0xf4, 0x90, 0xe0, 0x80};
      ids.push_back(kBytes[state >> 28]);
      bytes += static_cast<char>(ids.back());
    }
    StreamDetokenizer stream(*tokenizer);
    std::string text;
    for (const int32_t id : ids) text += stream.push(id);
    text += stream.finish();
    std::string expected;
    append_repaired_utf8(expected, bytes, false);
    EXPECT_EQ(text, expected);
    EXPECT_EQ(tokenizer->decode(ids), expected);
  }
}

TEST(StreamDetokenizer, leaves_special_tokens_out_unless_told) {
  const auto tokenizer = tokenizer_of(small_tokenizer());
  EXPECT_EQ(StreamDetokenizer(*tokenizer).push(259), "");
  EXPECT_EQ(StreamDetokenizer(*tokenizer, false).push(259), "<s>");
}

}  // namespace
}  // namespace upg
