// Fields of config.json: types, ranges, defaults, and the name in every complaint.
#include "model/config.h"

#include "format/test_util.h"

namespace upg {
namespace {

using ::testing::HasSubstr;
using testing_util::error_of;

const ConfigReader& config() {
  static const ConfigReader reader(
      R"({"n": 7, "minus": -1, "real": 0.5, "yes": true, "word": "silu", "nothing": null, "inner": {"x": 3},
          "architectures": ["A"], "huge": 18446744073709551615, "list": []})",
      "config.json");
  return reader;
}

std::string refusal(const std::function<void()>& action) { return error_of(action).value_or("accepted"); }

TEST(ConfigReader, FieldsAreRead) {
  EXPECT_EQ(config().integer("n", 1, 7), 7u);
  EXPECT_EQ(config().integer("huge", 0, UINT64_MAX), UINT64_MAX);
  EXPECT_EQ(config().number("real", 0, 1), 0.5);
  EXPECT_EQ(config().number("n", 0, 10), 7.0);
  EXPECT_TRUE(config().boolean("yes", false));
  EXPECT_EQ(config().string("word", ""), "silu");
  EXPECT_EQ(config().object("inner")->integer("x", 0, 9), 3u);
  EXPECT_EQ(config().architecture(), "A");
}

TEST(ConfigReader, AbsentAndNullTakeTheDefault) {
  for (const char* key : {"absent", "nothing"}) {
    EXPECT_EQ(config().integer(key, 1, 2, 9), 9u);
    EXPECT_EQ(config().number(key, 0, 1, 0.25), 0.25);
    EXPECT_TRUE(config().boolean(key, true));
    EXPECT_EQ(config().string(key, "x"), "x");
    EXPECT_FALSE(config().object(key));
    EXPECT_THAT(refusal([&] { config().integer(key, 0, 1); }), HasSubstr(fmt::format("\"{}\" is missing", key)));
    EXPECT_THAT(refusal([&] { config().number(key, 0, 1); }), HasSubstr(fmt::format("\"{}\" is missing", key)));
  }
}

TEST(ConfigReader, WrongFieldsAreNamedWithValueAndRange) {
  EXPECT_EQ(refusal([] { config().integer("n", 8, 9); }), "config.json: n is 7, must be an integer from 8 to 9");
  EXPECT_THAT(refusal([] { config().integer("minus", 0, 9); }), HasSubstr("minus is -1"));
  EXPECT_THAT(refusal([] { config().integer("real", 0, 9); }), HasSubstr("real is 0.5"));
  EXPECT_THAT(refusal([] { config().integer("word", 0, 9, 5); }), HasSubstr("word is \"silu\""));
  EXPECT_THAT(refusal([] { config().number("n", 0, 1); }), HasSubstr("must be a number from 0 to 1"));
  EXPECT_THAT(refusal([] { config().boolean("n", true); }), HasSubstr("n is 7, must be true or false"));
  EXPECT_THAT(refusal([] { config().string("n", ""); }), HasSubstr("must be a string"));
  EXPECT_THAT(refusal([] { config().object("list"); }), HasSubstr("list is [], must be an object"));
  EXPECT_THAT(refusal([] { config().object("inner")->integer("y", 0, 1); }), HasSubstr("config.json: inner"));
  EXPECT_THAT(refusal([] { config().unsupported("word", "only gelu is"); }), HasSubstr("word is \"silu\": only gelu"));
}

TEST(ConfigReader, TextThatIsNotAnObjectIsRefused) {
  for (const char* text : {"", "[]", "{", "null", "{\"a\": 1} x", "\xff"})
    EXPECT_THAT(refusal([&] { ConfigReader(text, "here"); }), HasSubstr("here")) << text;
}

}  // namespace
}  // namespace upg
