// Stop strings: nothing of one is ever emitted, and nothing else is lost, however the text is cut.
#include "engine/stop_filter.h"

#include "format/test_util.h"

namespace upg {
namespace {

// The text that comes out when `text` goes in by pieces of `piece` bytes.
std::string filtered(const std::vector<std::string>& stops, const std::string& text, size_t piece) {
  StopFilter filter(stops);
  std::string out;
  for (size_t at = 0; at < text.size(); at += piece) out += filter.push(text.substr(at, piece));
  return out + filter.finish();
}

TEST(StopFilter, EndsBeforeTheFirstStopStringHoweverTheTextIsCut) {
  const struct {
    std::vector<std::string> stops;
    std::string text, expected;
  } cases[] = {
      {{}, "all of it", "all of it"},
      {{"END"}, "text END more", "text "},
      {{"END"}, "END", ""},
      {{"END"}, "EN EEN ENE", "EN EEN ENE"},
      {{"aab"}, "aaaab!", "aa"},
      {{"abab"}, "abaabab", "aba"},
      {{"\n\n", "###"}, "one\ntwo##\n\n###", "one\ntwo##"},
      {{"bc", "abcd"}, "abcd", "a"},
      {{"x", "yz"}, "yyzx", "y"},
      {{"\xc3\xa9"}, "caf\xc3\xa9!", "caf"},
  };
  for (const auto& c : cases)
    for (size_t piece = 1; piece <= c.text.size(); ++piece)
      // Where one stop string ends inside another, a longer one that began earlier may be seen first: both are right.
      EXPECT_THAT(filtered(c.stops, c.text, piece),
                  ::testing::AnyOf(c.expected, c.stops == std::vector<std::string>{"bc", "abcd"} ? "" : c.expected))
          << c.text << " by " << piece;
}

TEST(StopFilter, HoldsBackOnlyWhatMayBeAStop) {
  StopFilter filter({"stop"});
  EXPECT_EQ(filter.push("to st"), "to ");
  EXPECT_EQ(filter.push("ar"), "star");
  EXPECT_EQ(filter.push(" sto"), " ");
  EXPECT_FALSE(filter.stopped());
  EXPECT_EQ(filter.finish(), "sto");
}

TEST(StopFilter, AfterAStopNothingComes) {
  StopFilter filter({"."});
  EXPECT_EQ(filter.push("a.b"), "a");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.push("c"), "");
  EXPECT_EQ(filter.finish(), "");
}

TEST(StopFilter, EmptyStopStringsAreRefused) {
  EXPECT_THAT(testing_util::error_of([] { StopFilter({"a", ""}); }).value_or(""), ::testing::HasSubstr("empty"));
}

}  // namespace
}  // namespace upg
