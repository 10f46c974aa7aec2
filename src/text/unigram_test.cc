// Unigram models: the best path, ties, unknown characters, byte fallback.
#include "text/unigram.h"

#include "text/tokenizer_test_data.h"

namespace upg {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

json small_model() {
  return json::parse(R"({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["a", -1], ["b", -1], ["ab", -1.5],
                         ["aa", -2], ["aaa", -3], ["abc", -9]]})");
}

Ids encoded(const json& model, std::string_view text) {
  Ids ids;
  make_unigram(model, "t.json: model")->encode(text, ids);
  return ids;
}

TEST(Unigram, takes_the_path_of_the_greatest_score) {
  EXPECT_EQ(encoded(small_model(), "ab"), (Ids{3}));
  EXPECT_EQ(encoded(small_model(), "abab"), (Ids{3, 3}));
  EXPECT_EQ(encoded(small_model(), "abc"), (Ids{6}));
}

TEST(Unigram, takes_the_first_of_equal_paths) {
  EXPECT_EQ(encoded(small_model(), "aa"), (Ids{4}));
  EXPECT_EQ(encoded(small_model(), "aaaa"), (Ids{1, 5}));
}

TEST(Unigram, puts_unknown_characters_in_a_row_together) {
  EXPECT_EQ(encoded(small_model(), "x\u00e9y"), (Ids{0}));
  EXPECT_EQ(encoded(small_model(), "xaxx"), (Ids{0, 1, 0}));
}

TEST(Unigram, falls_back_to_bytes_where_all_are_there) {
  json model = small_model();
  model["byte_fallback"] = true;
  model["vocab"].push_back({"<0xC3>", -1});
  model["vocab"].push_back({"<0xA9>", -1});
  EXPECT_EQ(encoded(model, "a\u00e9\u00e9"), (Ids{1, 7, 8, 7, 8}));
  EXPECT_EQ(encoded(model, "a\u00e9x"), (Ids{1, 0}));
}

TEST(Unigram, needs_an_unknown_token_only_for_unknown_characters) {
  json model = small_model();
  model.erase("unk_id");
  EXPECT_EQ(encoded(model, "ab"), (Ids{3}));
  EXPECT_THROW(encoded(model, "x"), Error);
}

TEST(Unigram, of_equal_tokens_the_later_counts) {
  json model = small_model();
  model["vocab"].push_back({"b", 0});
  EXPECT_EQ(encoded(model, "b"), (Ids{7}));
}

TEST(Unigram, broken_vocabularies_are_refused) {
  for (const char* vocabulary : {R"([["a"]])", R"(["a"])", R"([["a", "b"]])", R"([[1, 2]])", R"({"a": 1})", "[]"}) {
    const json model = {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", json::parse(vocabulary)}};
    EXPECT_THROW(make_unigram(model, "t"), Error) << vocabulary;
  }
  json model = small_model();
  for (const json& id : {json(7), json(-1), json("a")}) {
    model["unk_id"] = id;
    EXPECT_THROW(make_unigram(model, "t"), Error);
  }
}

TEST(Unigram, reads_scores_as_the_json_reader_of_hugging_face_does) {
  EXPECT_EQ(score_of_decimal(-2.5), -2.5);
  EXPECT_EQ(score_of_decimal(0), 0);
  EXPECT_EQ(score_of_decimal(-1e-7), -1e-7);
  EXPECT_EQ(score_of_decimal(12345678), 12345678);
  // The division rounds to the neighbour of the number meant.
  EXPECT_EQ(score_of_decimal(-9.040564365469137), -9.040564365469136);
  EXPECT_EQ(score_of_decimal(-9.093474417950619), -9.09347441795062);
}

}  // namespace
}  // namespace upg
