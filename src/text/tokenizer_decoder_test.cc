// What tokens stand for, alone and in a stream, with the decoders of SentencePiece families.
#include "text/tokenizer_decoder.h"

#include <random>

#include "text/detokenizer.h"
#include "text/tokenizer_test_data.h"

namespace upg {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

int32_t byte(int value) { return 7 + value; }

std::string streamed(const Tokenizer& tokenizer, const Ids& ids, bool skip_special = false) {
  StreamDetokenizer stream(tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) text += stream.push(id);
  return text + stream.finish();
}

TEST(TokenizerDecoder, a_byte_token_is_one_byte_and_the_visible_space_a_space) {
  const auto tokenizer = tokenizer_of(small_byte_fallback_tokenizer());
  EXPECT_EQ(tokenizer->token_bytes(byte(0x0a)), "\n");
  EXPECT_EQ(tokenizer->token_bytes(byte(0xff)), "\xff");
  EXPECT_EQ(tokenizer->token_bytes(byte(0)), std::string_view("\0", 1));
  EXPECT_EQ(tokenizer->token_bytes(4), " a");
  EXPECT_EQ(tokenizer->token_bytes(6), "<s>");
  EXPECT_TRUE(tokenizer->is_byte(byte(0x41)));
  EXPECT_FALSE(tokenizer->is_byte(2));
}

TEST(TokenizerDecoder, the_space_at_the_beginning_goes_and_no_other) {
  const auto tokenizer = tokenizer_of(small_byte_fallback_tokenizer());
  EXPECT_EQ(tokenizer->decode(Ids{4, 1, 4}), "ab a");
  EXPECT_EQ(tokenizer->decode(Ids{3, 4}), " a");
  EXPECT_EQ(tokenizer->decode(Ids{6, 4}), "<s> a");
  EXPECT_EQ(tokenizer->decode(Ids{6, 4}, true), "a");
  EXPECT_EQ(tokenizer->decode(Ids{byte(' '), 2}), "ab");
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(" ab  a\nb\u00e9")), " ab  a\nb\u00e9");
}

TEST(TokenizerDecoder, a_stream_shows_bytes_as_soon_as_they_are_characters) {
  const auto tokenizer = tokenizer_of(small_byte_fallback_tokenizer());
  StreamDetokenizer stream(*tokenizer);
  EXPECT_EQ(stream.push(4), "a");
  EXPECT_EQ(stream.push(byte(0x0a)), "\n");
  EXPECT_EQ(stream.push(byte(0xc3)), "");
  EXPECT_EQ(stream.push(byte(0xa9)), "\u00e9");
  EXPECT_EQ(stream.push(byte(0xe2)), "");
  EXPECT_EQ(stream.push(byte(0x82)), "");
  EXPECT_EQ(stream.push(0), "\ufffd\ufffda");  // one for each byte, as in Hugging Face tokenizers and SentencePiece
  EXPECT_EQ(stream.push(byte(0xf0)), "");
  EXPECT_EQ(stream.finish(), "\ufffd");
}

TEST(TokenizerDecoder, a_stream_gives_what_decode_gives) {
  std::mt19937 random(1);
  json metaspace = small_byte_fallback_tokenizer();
  metaspace["decoder"] = {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "always"}};
  json edges = small_byte_fallback_tokenizer();
  edges["decoder"]["decoders"][3]["start"] = 2;
  edges["decoder"]["decoders"][3]["stop"] = 2;
  for (const json& root : {small_byte_fallback_tokenizer(), metaspace, edges, small_tokenizer()}) {
    const auto tokenizer = tokenizer_of(root);
    for (int i = 0; i < 3000; ++i) {
      Ids ids(random() % 8);
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % (random() % 2 == 0 ? 8 : 270));
      for (const bool skip : {false, true}) ASSERT_EQ(streamed(*tokenizer, ids, skip), tokenizer->decode(ids, skip));
    }
  }
}

TEST(TokenizerDecoder, both_edges_are_stripped) {
  json root = small_byte_fallback_tokenizer();
  root["decoder"]["decoders"][3]["stop"] = 2;
  const auto tokenizer = tokenizer_of(root);
  EXPECT_EQ(tokenizer->decode(Ids{3, 2, 3, 3, 3}), "ab ");
  EXPECT_EQ(tokenizer->decode(Ids{3, 2, 3, 3, 2, 3}), "ab  ab");
  EXPECT_EQ(tokenizer->decode(Ids{3, 3, 3}), "");
}

TEST(TokenizerDecoder, metaspace_takes_the_spaces_off_the_first_token) {
  json root = small_byte_fallback_tokenizer();
  root["decoder"] = {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"add_prefix_space", true}};
  EXPECT_EQ(tokenizer_of(root)->decode(Ids{4, 4}), "a a");
  EXPECT_EQ(tokenizer_of(root)->decode(Ids{6, 4}), "<s> a");
  root["decoder"]["add_prefix_space"] = false;
  EXPECT_EQ(tokenizer_of(root)->decode(Ids{4, 4}), " a a");
}

TEST(TokenizerDecoder, an_order_of_decoders_that_cannot_be_streamed_is_refused) {
  json root = small_byte_fallback_tokenizer();
  for (const char* type : {"Replace", "Metaspace", "ByteFallback", "ByteLevel"}) {
    root["decoder"]["decoders"][3] = {
        {"type", type}, {"pattern", {{"String", "a"}}}, {"content", ""}, {"replacement", "_"}};
    const auto error = reading_error(root.dump());
    ASSERT_TRUE(error.has_value()) << type;
    EXPECT_EQ(error->code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error->what()).find("decoder.decoders[3]"), std::string::npos) << error->what();
  }
}

}  // namespace
}  // namespace upg
