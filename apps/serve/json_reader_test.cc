#include "serve/json_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/errors.h"
#include "serve/limits.h"

namespace upg::serve {
namespace {

using testing::HasSubstr;

template <typename Work>
RequestError refusal(Work work) {
  try {
    work();
  } catch (const RequestError& error) {
    EXPECT_EQ(error.status, 400);
    return error;
  }
  ADD_FAILURE() << "was not refused";
  return RequestError(0, "");
}

TEST(JsonReader, RefusesWhatIsNoJsonAndSaysWhere) {
  EXPECT_THAT(refusal([] { parse_object("{\"a\": }"); }).what(), HasSubstr("byte 7 of 7"));
  EXPECT_THAT(refusal([] { parse_object("[1]"); }).what(), HasSubstr("array, must be an object"));
  EXPECT_THAT(refusal([] { parse_object("{\"a\": 1e999}"); }).what(), HasSubstr("out of range"));
  refusal([] { parse_object("{\"a\": \"\xff\"}"); });
  refusal([] { parse_object(""); });
}

TEST(JsonReader, BoundsDepthAndKeys) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse_json(nested(kMaxJsonDepth)));
  EXPECT_THAT(refusal([&] { parse_json(nested(kMaxJsonDepth + 1)); }).what(), HasSubstr("64 levels"));
  std::string many = "{\"k\": 0";
  for (size_t i = 1; i <= kMaxJsonKeys; ++i) many += ",\"" + std::to_string(i) + "\":0";
  EXPECT_THAT(refusal([&] { parse_json(many + "}"); }).what(), HasSubstr("4096 keys"));
}

TEST(JsonReader, FieldsAreReadByTypeAndNullIsAbsent) {
  const Json json = parse_object(R"({"t": "x", "n": 0.5, "i": 3, "w": 4.0, "b": true, "z": null, "a": [1], "o": {}})");
  const Fields fields(json);
  EXPECT_EQ(fields.text("t"), "x");
  EXPECT_EQ(fields.number("n", 0, 1), 0.5);
  EXPECT_EQ(fields.integer("i", 0, 9), 3);
  EXPECT_EQ(fields.integer("w", 0, 9), 4);
  EXPECT_EQ(fields.flag("b"), true);
  EXPECT_EQ(fields.text("z"), std::nullopt);
  EXPECT_EQ(fields.array("a", 1)->size(), 1u);
  EXPECT_NE(fields.object("o"), nullptr);
  EXPECT_EQ(fields.find("missing"), nullptr);
}

TEST(JsonReader, ErrorsNameTheFieldAndTheLimit) {
  const Json json = parse_object(R"({"t": 3, "i": 1.5, "big": 99999999999999999999, "far": 10, "a": [1, 2]})");
  const Fields fields(json, "outer");
  EXPECT_EQ(refusal([&] { fields.text("t"); }).param, "outer.t");
  EXPECT_THAT(refusal([&] { fields.integer("i", 0, 9); }).what(), HasSubstr("must be an integer"));
  EXPECT_THAT(refusal([&] { fields.integer("big", 0, 9); }).what(), HasSubstr("from 0 to 9"));
  EXPECT_THAT(refusal([&] { fields.number("far", 0, 2); }).what(), HasSubstr("outer.far is 10, must be from 0 to 2"));
  EXPECT_THAT(refusal([&] { fields.array("a", 1); }).what(), HasSubstr("2 entries, 1 are the limit"));
  EXPECT_THAT(refusal([&] { fields.required_text("gone"); }).what(), HasSubstr("missing"));
  refusal([&] { fields.flag("t"); });
  refusal([&] { fields.object("t"); });
}

TEST(JsonReader, TextThatIsNotUtf8IsRepairedOnTheWayOut) { EXPECT_EQ(to_text(Json("\xff")), "\"\xEF\xBF\xBD\""); }

}  // namespace
}  // namespace upg::serve
