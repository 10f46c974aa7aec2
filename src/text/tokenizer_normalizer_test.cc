// Each normalizer on texts whose result is known from Hugging Face tokenizers.
#include "text/tokenizer_normalizer.h"

#include "text/base64.h"
#include "text/graphemes.h"
#include "text/tokenizer_test_data.h"

namespace upg {
namespace {

using nlohmann::json;

std::string normalized(const char* normalizer, std::string_view text) {
  return make_normalizer(json::parse(normalizer), "t.json: normalizer")->normalized(text);
}

TEST(TokenizerNormalizer, the_four_forms) {
  const std::string text = "\u00e9 e\u0301 \ufb01 \u2460 \u1e9b\u0323";
  EXPECT_EQ(normalized(R"({"type": "NFC"})", text), "\u00e9 \u00e9 \ufb01 \u2460 \u1e9b\u0323");
  EXPECT_EQ(normalized(R"({"type": "NFD"})", text), "e\u0301 e\u0301 \ufb01 \u2460 \u017f\u0323\u0307");
  EXPECT_EQ(normalized(R"({"type": "NFKC"})", text), "\u00e9 \u00e9 fi 1 \u1e69");
  EXPECT_EQ(normalized(R"({"type": "NFKD"})", text), "e\u0301 e\u0301 fi 1 s\u0323\u0307");
  EXPECT_EQ(normalized(R"({"type": "NFD"})", "\u0c48\u094d\u0dde"), "\u0c46\u094d\u0c56\u0dd9\u0ddf");
  // Assigned after the Unicode version of the package's forms.
  EXPECT_EQ(normalized(R"({"type": "NFKC"})", "\U0001fbf0"), "\U0001fbf0");
}

TEST(TokenizerNormalizer, characters_one_by_one) {
  EXPECT_EQ(normalized(R"({"type": "Lowercase"})", "AÉẞ\u0130Σ\u1c89"), "aéßi\u0307σ\u1c8a");
  EXPECT_EQ(normalized(R"({"type": "StripAccents"})", "e\u0301a\u0328\u00e9"), "ea\u00e9");
  EXPECT_EQ(normalized(R"({"type": "Nmt"})", "a\x01\x1f b\tc\u200bd\u2581e\ufffd"), "a b c d e ");
  EXPECT_EQ(normalized(R"({"type": "Strip", "strip_left": true, "strip_right": true})", " \u00a0a b\n"), "a b");
  EXPECT_EQ(normalized(R"({"type": "Strip", "strip_left": false, "strip_right": true})", " a "), " a");
}

TEST(TokenizerNormalizer, prepend_and_replace) {
  EXPECT_EQ(normalized(R"({"type": "Prepend", "prepend": "_"})", "a"), "_a");
  EXPECT_EQ(normalized(R"({"type": "Prepend", "prepend": "_"})", ""), "");
  EXPECT_EQ(normalized(R"({"type": "Replace", "pattern": {"String": "a.b"}, "content": "-"})", "a.b axb"), "- axb");
  EXPECT_EQ(normalized(R"({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})", "a   b  c d"),
            "a b c d");
}

// A map of every byte to "X": it shows where clusters are cut, of up to 5 bytes as one X, of more each character.
std::string every_byte_map() {
  std::string bytes;
  const auto put = [&](uint32_t unit) {
    for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(unit >> shift & 0xff);
  };
  put(4 * 1024);
  for (uint32_t i = 0; i < 1024; ++i)
    put(i == 0 ? 256u << 10 : i > 256 && i < 512 ? (i ^ 512) << 10 | 1 << 8 | (i & 255) : 0);
  return bytes + std::string("X\0", 2);
}

std::string with_map(std::string_view map, std::string_view text) {
  const json object = {{"type", "Precompiled"}, {"precompiled_charsmap", encode_base64(map)}};
  return make_normalizer(object, "t.json: normalizer")->normalized(text);
}

TEST(TokenizerNormalizer, a_character_map_replaces_short_clusters_whole) {
  EXPECT_EQ(with_map(every_byte_map(), "ab"), "XX");
  EXPECT_EQ(with_map(every_byte_map(), "e\u0301"), "X");
  EXPECT_EQ(with_map(every_byte_map(), "\r\n"), "X");
  EXPECT_EQ(with_map(every_byte_map(), "\n\r"), "XX");
  EXPECT_EQ(with_map(every_byte_map(), "e\u0301\u0301\u0301"), "XXXX");
  EXPECT_EQ(with_map(every_byte_map(), "\u00a9\u200d\u00a9"), "XXX");
  EXPECT_EQ(with_map(every_byte_map(), "\u0915\u094d\u0915\u0301"), "XXXX");
  EXPECT_EQ(with_map(every_byte_map(), "\u1100\u08e2\u0431"), "XX");      // before a prepended mark
  EXPECT_EQ(with_map(every_byte_map(), "\U000e03d7\u0301\u0301"), "XX");  // behind a control
}

TEST(TokenizerNormalizer, a_character_map_that_points_outside_of_itself_is_refused) {
  const std::string map = every_byte_map();
  for (const size_t size : {size_t{0}, size_t{3}, size_t{4}, size_t{100}})
    EXPECT_THROW(with_map(map.substr(0, size), "a"), Error) << size;
  for (size_t i = 0; i < map.size(); i += 7) {
    std::string broken = map;
    broken[i] = static_cast<char>(broken[i] ^ 0x55);
    try {
      with_map(broken, "abc\u00e9\u0301");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidFile);
    }
  }
  EXPECT_THROW(make_normalizer({{"type", "Precompiled"}, {"precompiled_charsmap", "a"}}, "t"), Error);
}

TEST(TokenizerNormalizer, growth_out_of_proportion_is_refused) {
  json steps = json::array();
  for (int i = 0; i < 60; ++i)
    steps.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}});
  const auto normalizer = make_normalizer({{"type", "Sequence"}, {"normalizers", steps}}, "t");
  EXPECT_THROW(normalizer->normalized("a"), Error);
  EXPECT_EQ(normalizer->normalized("b"), "b");
}

TEST(TokenizerNormalizer, base64_there_and_back) {
  for (const std::string text : {"", "a", "ab", "abc", "\xff\xfe\xfd\xfc"})
    EXPECT_EQ(decode_base64(encode_base64(text)), text);
  for (const char* text : {"a", "ab", "abc", "a===", "ab c", "=aaa", "aa=a"}) EXPECT_FALSE(decode_base64(text)) << text;
}

}  // namespace
}  // namespace upg
