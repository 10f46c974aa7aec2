#include "text/bpe.h"

#include "text/tokenizer_test_data.h"

namespace upg {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

Ids encode(const json& model, std::string_view piece) {
  Ids ids;
  make_bpe(model, "model")->encode(piece, ids);
  return ids;
}

const json kVocabulary = {{"a", 0},   {"b", 1},  {"c", 2},    {"ab", 3},   {"bc", 4},
                          {"abc", 5}, {"aa", 6}, {"aaaa", 7}, {"<unk>", 8}};

TEST(Bpe, the_first_merge_of_the_list_goes_first) {
  EXPECT_EQ(encode({{"vocab", kVocabulary}, {"merges", {"a b", "b c"}}}, "abc"), (Ids{3, 2}));
  EXPECT_EQ(encode({{"vocab", kVocabulary}, {"merges", {"b c", "a b"}}}, "abc"), (Ids{0, 4}));
  EXPECT_EQ(
      encode({{"vocab", kVocabulary}, {"merges", json::array({json::array({"b", "c"}), json::array({"a", "bc"})})}},
             "abcabc"),
      (Ids{5, 5}));
}

TEST(Bpe, equal_merges_go_from_left_to_right) {
  const json model = {{"vocab", kVocabulary}, {"merges", {"#version: 0.2", "a a", "aa aa"}}};
  EXPECT_EQ(encode(model, "aaa"), (Ids{6, 0}));
  EXPECT_EQ(encode(model, "aaaaaaa"), (Ids{7, 6, 0}));
}

TEST(Bpe, ignore_merges_takes_whole_pieces_from_the_vocabulary) {
  json model = {{"vocab", kVocabulary}, {"merges", json::array()}};
  EXPECT_EQ(encode(model, "abc"), (Ids{0, 1, 2}));
  model["ignore_merges"] = true;
  EXPECT_EQ(encode(model, "abc"), (Ids{5}));
  EXPECT_EQ(encode(model, "abcb"), (Ids{0, 1, 2, 1}));
}

TEST(Bpe, unknown_characters_are_left_out_or_become_the_unknown_token) {
  json model = {{"vocab", kVocabulary}, {"merges", json::array()}};
  EXPECT_EQ(encode(model, "axy\U0001f999b"), (Ids{0, 1}));
  EXPECT_EQ(encode(model, "xyz"), Ids{});
  model["unk_token"] = "<unk>";
  EXPECT_EQ(encode(model, "axy\U0001f999b"), (Ids{0, 8, 8, 8, 1}));
  model["fuse_unk"] = true;
  EXPECT_EQ(encode(model, "axy\U0001f999bx"), (Ids{0, 8, 1, 8}));
}

}  // namespace
}  // namespace upg
