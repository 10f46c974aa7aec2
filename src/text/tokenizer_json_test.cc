// Files that are broken, hostile or ask for what this build lacks: an Error that names the field, never anything else.
#include "text/tokenizer_json.h"

#include "text/tokenizer_test_data.h"

namespace upg {
namespace {

using nlohmann::json;

void expect_error(const json& root, ErrorCode code, const std::string& part_of_message) {
  const auto error = reading_error(root.dump());
  ASSERT_TRUE(error.has_value()) << part_of_message;
  EXPECT_EQ(error->code(), code) << error->what();
  EXPECT_EQ(std::string(error->what()).rfind("t.json: ", 0), 0u) << error->what();
  EXPECT_NE(std::string(error->what()).find(part_of_message), std::string::npos) << error->what();
}

json changed(const std::string& pointer, const json& value) {
  json root = small_tokenizer();
  root[json::json_pointer(pointer)] = value;
  return root;
}

TEST(TokenizerJson, truncation_at_any_length_is_an_error) {
  const std::string text = small_tokenizer().dump();
  for (size_t length = 0; length < text.size(); ++length) {
    const auto error = reading_error(text.substr(0, length));
    ASSERT_TRUE(error.has_value()) << length;
    EXPECT_EQ(error->code(), ErrorCode::kInvalidFile);
  }
  EXPECT_FALSE(reading_error(text).has_value());
}

TEST(TokenizerJson, any_flipped_byte_gives_a_tokenizer_or_an_error) {
  const std::string text = small_tokenizer().dump();
  for (size_t i = 0; i < text.size(); ++i) {
    std::string flipped = text;
    flipped[i] = static_cast<char>(flipped[i] ^ (1 << i % 8));
    reading_error(flipped);  // anything but an Error would escape
  }
}

TEST(TokenizerJson, a_value_of_the_wrong_type_is_named) {
  const std::pair<const char*, const char*> fields[] = {
      {"/version", "version"},
      {"/added_tokens", "added_tokens"},
      {"/added_tokens/0", "added_tokens[0]"},
      {"/added_tokens/0/id", "added_tokens[0].id"},
      {"/added_tokens/0/content", "added_tokens[0].content"},
      {"/added_tokens/0/special", "added_tokens[0].special"},
      {"/normalizer", "normalizer"},
      {"/pre_tokenizer", "pre_tokenizer"},
      {"/pre_tokenizer/type", "pre_tokenizer.type"},
      {"/pre_tokenizer/use_regex", "pre_tokenizer.use_regex"},
      {"/post_processor", "post_processor"},
      {"/decoder", "decoder"},
      {"/model", "model"},
      {"/model/vocab", "model.vocab"},
      {"/model/vocab/ab", "model.vocab"},
      {"/model/merges", "model.merges"},
      {"/model/merges/1", "model.merges[1]"},
      {"/model/ignore_merges", "model.ignore_merges"},
  };
  for (const auto& [pointer, name] : fields) expect_error(changed(pointer, 1.5), ErrorCode::kInvalidFile, name);
  for (const json& root : {json(nullptr), json(1), json("x"), json::array()})
    expect_error(root, ErrorCode::kInvalidFile, "must be an object");
}

TEST(TokenizerJson, a_missing_part_is_named) {
  for (const char* key :
       {"/model/vocab", "/model/merges", "/model", "/decoder", "/pre_tokenizer/type", "/added_tokens/0/id"})
    EXPECT_TRUE(reading_error(changed(key, nullptr).dump()).has_value()) << key;
  expect_error(json::object(), ErrorCode::kInvalidFile, "model");
}

TEST(TokenizerJson, ids_out_of_range_are_refused) {
  for (const json& id : {json(uint64_t{1} << 40), json(-1), json(kMaxTokenId), json(UINT64_MAX), json(INT64_MIN)}) {
    expect_error(changed("/model/vocab/ab", id), ErrorCode::kInvalidFile, "model.vocab");
    expect_error(changed("/added_tokens/0/id", id), ErrorCode::kInvalidFile, "added_tokens[0].id");
  }
}

TEST(TokenizerJson, ids_given_twice_are_refused) {
  expect_error(changed("/model/vocab/ab", 257), ErrorCode::kInvalidFile, "have the id 257");
  expect_error(changed("/added_tokens/0/id", 256), ErrorCode::kInvalidFile, "added_tokens[0]");
  expect_error(changed("/added_tokens/0/content", "ab"), ErrorCode::kInvalidFile, "has the id 259 here");
  json root = small_tokenizer();
  root["added_tokens"].push_back(root["added_tokens"][0]);
  expect_error(root, ErrorCode::kInvalidFile, "added_tokens[1]");
  root["added_tokens"][1]["id"] = 300;
  expect_error(root, ErrorCode::kInvalidFile, "given twice");
}

TEST(TokenizerJson, merges_of_unknown_tokens_are_refused) {
  expect_error(changed("/model/merges/0", "a zz"), ErrorCode::kInvalidFile, "names \"zz\"");
  expect_error(changed("/model/merges/0", {"b", "a"}), ErrorCode::kInvalidFile, "names \"ba\"");
  for (const json& merge :
       {json("a"), json("a b c"), json(""), json::array(), json({"a"}), json({"a", 1}), json({"a", "b", "c"})})
    expect_error(changed("/model/merges/0", merge), ErrorCode::kInvalidFile, "model.merges[0]");
}

TEST(TokenizerJson, what_is_not_supported_is_refused_by_name) {
  for (const char* part : {"/normalizer", "/pre_tokenizer", "/post_processor", "/decoder", "/model"})
    expect_error(changed(part, {{"type", "Curious"}}), ErrorCode::kUnsupported, "\"Curious\"");
  expect_error(changed("/model/dropout", 0.1), ErrorCode::kUnsupported, "model.dropout");
  expect_error(changed("/decoder", json::parse(R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
                   {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}]})")),
               ErrorCode::kUnsupported, "decoder.decoders[1]");
  expect_error(changed("/model/continuing_subword_prefix", "##"), ErrorCode::kUnsupported, "continuing_subword_prefix");
  expect_error(changed("/version", "2.0"), ErrorCode::kUnsupported, "version");
  expect_error(changed("/added_tokens/0/content", std::string(5000, 'x')), ErrorCode::kUnsupported, "content");
}

TEST(TokenizerJson, deep_nesting_is_refused) {
  const std::pair<const char*, const char*> sequences[] = {{"/normalizer", "normalizers"},
                                                           {"/pre_tokenizer", "pretokenizers"},
                                                           {"/post_processor", "processors"},
                                                           {"/decoder", "decoders"}};
  for (const auto& [pointer, key] : sequences) {
    json part = {{"type", "ByteLevel"}};
    for (int i = 0; i < 200; ++i) part = {{"type", "Sequence"}, {key, json::array({part})}};
    expect_error(changed(pointer, part), ErrorCode::kUnsupported, "nested");
  }
  for (const char* open : {"[", "{\"a\":", "{\"normalizer\":[["}) {
    std::string text;
    for (int i = 0; i < 100000; ++i) text += open;
    EXPECT_TRUE(reading_error(text).has_value());
  }
  EXPECT_TRUE(reading_error(std::string(100000, '[') + std::string(100000, ']')).has_value());
}

TEST(TokenizerJson, templates_that_say_nothing_of_the_text_are_refused) {
  const auto with = [](const char* single) {
    return changed("/post_processor", {{"type", "TemplateProcessing"},
                                       {"single", json::parse(single)},
                                       {"special_tokens", {{"<s>", {{"ids", {259}}}}}}});
  };
  expect_error(with("[]"), ErrorCode::kUnsupported, "Sequence");
  expect_error(with(R"([{"Sequence": {"id": "B"}}])"), ErrorCode::kUnsupported, "single[0]");
  expect_error(with(R"([{"Sequence": {"id": "A"}}, {"Sequence": {"id": "A"}}])"), ErrorCode::kUnsupported, "single[1]");
  expect_error(with(R"([{"SpecialToken": {"id": "no"}}, {"Sequence": {"id": "A"}}])"), ErrorCode::kInvalidFile, "no");
  expect_error(changed("/post_processor",
                       {{"type", "TemplateProcessing"},
                        {"single", json::parse(R"([{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}])")},
                        {"special_tokens", {{"x", {{"ids", {260}}}}}}}),
               ErrorCode::kInvalidFile, "the id 260");
  expect_error(with("[7]"), ErrorCode::kInvalidFile, "single[0]");
}

}  // namespace
}  // namespace upg
