#include "text/unicode.h"

#include <gtest/gtest.h>

namespace upg {
namespace {

TEST(Unicode, every_code_point_is_written_and_read_back) {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string text;
    append_utf8(text, c);
    const CodePoint read = code_point_at(text, 0);
    ASSERT_EQ(read.value, c);
    ASSERT_EQ(read.bytes, text.size());
    std::string repaired;
    ASSERT_EQ(append_repaired_utf8(repaired, text, true), text.size());
    ASSERT_EQ(repaired, text);
  }
}

TEST(Unicode, ill_formed_sequences_become_one_replacement_for_each_maximal_part) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\x80z", "a\ufffdz"},
      {"\xc0\xaf", "\ufffd\ufffd"},
      {"\xe0\x80\x80", "\ufffd\ufffd\ufffd"},
      {"\xf0\x9f\xa6z", "\ufffdz"},
      {"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"},
      {"\xe2\x82\xe2\x82\xac", "\ufffd\u20ac"},
      {"\xf5", "\ufffd"},
  };
  for (const auto& [bytes, expected] : cases) {
    std::string text;
    append_repaired_utf8(text, bytes, false);
    EXPECT_EQ(text, expected);
  }
}

TEST(Unicode, an_unfinished_character_waits_for_more) {
  std::string text;
  EXPECT_EQ(append_repaired_utf8(text, "ab\xf0\x9f", true), 2u);
  EXPECT_EQ(text, "ab");
}

TEST(Unicode, tables_are_sorted) {
  const auto expect_sorted = [](std::span<const CodePointRange> ranges) {
    for (size_t i = 0; i < ranges.size(); ++i) {
      EXPECT_LE(ranges[i].first, ranges[i].last);
      EXPECT_TRUE(i == 0 || ranges[i - 1].last < ranges[i].first);
    }
  };
  for (const LateCodePoints& late : kLateCodePoints) expect_sorted(late.ranges);
  expect_sorted(kNumeric);
  expect_sorted(kPunctuation);
  expect_sorted(kNormalizationBarriers);
  EXPECT_TRUE(contains(kNumeric, '0'));
  EXPECT_FALSE(contains(kNumeric, '/'));
}

}  // namespace
}  // namespace upg
