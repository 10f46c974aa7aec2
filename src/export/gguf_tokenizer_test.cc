// Tokenizers in GGUF's words.
#include "export/gguf_tokenizer.h"

#include "export/test_util.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::HasSubstr;

class GgufTokenizerTest : public ::testing::Test {
 protected:
  std::map<std::string, GgufValue> made(const std::string& tokenizer, uint64_t vocab = 9000) {
    notes_.clear();
    const GgufMetadata metadata = gguf_tokenizer({texts_, tokenizer, "model", vocab}, notes_);
    return {metadata.begin(), metadata.end()};
  }
  std::map<std::string, GgufValue> of_file(const std::string& name) {
    return made(read_file(source_path("tests/data/tokenizers/" + name + ".tokenizer.json")), 160000);
  }
  std::string refusal(const nlohmann::json& tokenizer) {
    return error_of([&] { made(tokenizer.dump()); }).value_or("");
  }
  template <typename T>
  static T get(const std::map<std::string, GgufValue>& values, const std::string& key) {
    return std::get<T>(values.at("tokenizer.ggml." + key));
  }
  static nlohmann::json demo() { return nlohmann::json::parse(read_file(demo_model() + "/tokenizer.json")); }

  ModelTexts texts_{};
  std::vector<std::string> notes_;
};

TEST_F(GgufTokenizerTest, ByteLevelVocabulariesHaveMergesAndTheNameOfTheirPreTokenizer) {
  texts_.tokenizer_config = R"({"bos_token": {"content": "<|endoftext|>"}, "eos_token": "<|im_end|>"})";
  texts_.generation_config = R"({"eos_token_id": [0, 2]})";
  texts_.chat_template = "{{ messages }}";
  const auto values = made(demo().dump(), 8200);
  EXPECT_EQ(get<std::string>(values, "model"), "gpt2");
  EXPECT_EQ(get<std::string>(values, "pre"), "dbrx");
  const auto tokens = get<std::vector<std::string>>(values, "tokens");
  EXPECT_EQ(tokens.size(), 8200u);
  EXPECT_EQ(tokens[0], "<|endoftext|>");
  EXPECT_EQ(tokens[8199], "[PAD8199]");
  const auto kinds = get<std::vector<int32_t>>(values, "token_type");
  EXPECT_EQ(kinds[0], 3);
  EXPECT_EQ(kinds[100], 1);
  EXPECT_EQ(kinds[8199], 5);
  EXPECT_EQ(get<std::vector<std::string>>(values, "merges").size(), demo()["model"]["merges"].size());
  EXPECT_EQ(get<uint32_t>(values, "bos_token_id"), 0u);
  EXPECT_EQ(tokens[get<uint32_t>(values, "eos_token_id")], "<|im_end|>");
  EXPECT_EQ(get<uint32_t>(values, "eot_token_id"), 0u);
  EXPECT_FALSE(get<bool>(values, "add_bos_token"));
  EXPECT_EQ(std::get<std::string>(values.at("tokenizer.chat_template")), "{{ messages }}");
}

TEST_F(GgufTokenizerTest, OtherPatternsHaveOtherNamesOrNone) {
  EXPECT_EQ(get<std::string>(of_file("gpt-2"), "pre"), "gpt-2");
  EXPECT_EQ(get<std::string>(of_file("phi-4"), "pre"), "dbrx");
  nlohmann::json tokenizer = demo();
  auto& pattern = tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"];
  std::string text = pattern;
  text.replace(text.find("{1,3}"), 5, "");
  pattern = text;
  EXPECT_EQ(get<std::string>(made(tokenizer.dump()), "pre"), "qwen2");
  tokenizer["normalizer"] = {{"type", "NFC"}};
  EXPECT_EQ(get<std::string>(made(tokenizer.dump()), "pre"), "qwen2");
  EXPECT_THAT(notes_, ::testing::Contains(HasSubstr("NFC")));
  EXPECT_THAT(notes_, ::testing::Not(::testing::Contains(HasSubstr("combining marks"))));
  tokenizer["normalizer"] = {{"type", "Lowercase"}};
  EXPECT_THAT(refusal(tokenizer), HasSubstr("a normalizer of byte-level tokenizers"));
  tokenizer = demo();
  tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "x+";
  EXPECT_THAT(refusal(tokenizer), HasSubstr("no pre-tokenizer that cuts texts at \"x+\""));
  EXPECT_THAT(*error_of([&] { made(demo().dump(), 100); }), HasSubstr("the embedding has 100 rows"));
}

TEST_F(GgufTokenizerTest, PublishedPreTokenizersHaveTheirNames) {
  // As the tokenizer.json files of Phi-4-mini, Mistral Nemo, DeepSeek-V3 and SmolLM2 have them.
  const std::string upper = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])",
                    lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])",
                    rest = R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
                    after = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)";
  const auto split = [](const std::string& pattern) {
    return nlohmann::json{
        {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  };
  const auto bytes = [](bool cuts) {
    return nlohmann::json{
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", cuts}};
  };
  const std::string gpt4o =
      upper + "*" + lower + "+" + after + "|" + upper + "+" + lower + "*" + after + R"(|\p{N}{1,3})" + rest;
  const std::string tekken = upper + "*" + lower + "+|" + upper + "+" + lower + "*" + R"(|\p{N})" + rest;
  const std::string deepseek =
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
      "?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
  const nlohmann::json digit = {{"type", "Digits"}, {"individual_digits", true}};
  const std::vector<std::pair<std::string, nlohmann::json>> published = {
      {"gpt-4o", {split(gpt4o), bytes(false)}},
      {"tekken", {split(tekken), bytes(false)}},
      {"deepseek-v3", {split(R"(\p{N}{1,3})"), split("[一-龥぀-ゟ゠-ヿ]+"), split(deepseek), bytes(false)}},
      {"smollm", {digit, bytes(true)}}};
  for (const auto& [name, steps] : published) {
    nlohmann::json tokenizer = demo();
    tokenizer["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", steps}};
    tokenizer["model"]["ignore_merges"] = name == "tekken";
    EXPECT_EQ(get<std::string>(made(tokenizer.dump()), "pre"), name);
  }
}

TEST_F(GgufTokenizerTest, TakingWholeTokensFirstMattersOnlyWhereMergesDoNotGiveThem) {
  nlohmann::json tokenizer = demo();
  tokenizer["model"]["ignore_merges"] = true;
  EXPECT_EQ(get<std::string>(made(tokenizer.dump()), "pre"), "llama-bpe");
  tokenizer["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  EXPECT_EQ(get<std::string>(made(tokenizer.dump()), "pre"), "gpt-2");  // each token is what merges give
  tokenizer["model"]["vocab"]["zzqqzz"] = 8195;                         // but this one
  EXPECT_THAT(refusal(tokenizer), HasSubstr("takes whole tokens first"));
}

TEST_F(GgufTokenizerTest, SentencePieceScoresFollowTheOrderOfMerges) {
  const auto values = of_file("llama-2-like");
  EXPECT_EQ(get<std::string>(values, "model"), "llama");
  EXPECT_TRUE(get<bool>(values, "add_bos_token"));
  EXPECT_TRUE(get<bool>(values, "add_space_prefix"));
  EXPECT_FALSE(get<bool>(of_file("gemma-like"), "add_space_prefix"));
  const auto tokens = get<std::vector<std::string>>(values, "tokens");
  const auto scores = get<std::vector<float>>(values, "scores");
  const auto kinds = get<std::vector<int32_t>>(values, "token_type");
  const auto id = [&](const std::string& token) {
    return static_cast<size_t>(std::find(tokens.begin(), tokens.end(), token) - tokens.begin());
  };
  const nlohmann::json file =
      nlohmann::json::parse(read_file(source_path("tests/data/tokenizers/llama-2-like.tokenizer.json")));
  float last = 1;
  std::set<std::string> seen;
  for (const nlohmann::json& merge : file["model"]["merges"]) {
    std::string result;
    for (const char c :
         merge.is_string() ? merge.get<std::string>() : merge[0].get<std::string>() + merge[1].get<std::string>())
      if (c != ' ') result += c;
    if (!seen.insert(result).second) continue;
    EXPECT_LT(scores[id(result)], last);
    last = scores[id(result)];
  }
  EXPECT_EQ(kinds[id("<0x0A>")], 6);
  EXPECT_EQ(kinds[id("<unk>")], 2);
  EXPECT_EQ(kinds[id("<s>")], 3);
}

TEST_F(GgufTokenizerTest, UnigramVocabulariesKeepScoresAndCharacterMap) {
  const auto values = of_file("t5-like");
  EXPECT_EQ(get<std::string>(values, "model"), "t5");
  EXPECT_TRUE(get<bool>(values, "add_eos_token"));
  EXPECT_FALSE(get<std::vector<uint8_t>>(values, "precompiled_charsmap").empty());
  EXPECT_EQ(get<uint32_t>(values, "unknown_token_id"), 0u);
  EXPECT_LT(get<std::vector<float>>(values, "scores")[100], 0);
}

TEST_F(GgufTokenizerTest, AModelWithoutATokenizerSaysSo) {
  EXPECT_EQ(get<std::string>(made(""), "model"), "none");
  EXPECT_EQ(notes_.size(), 1u);
}

}  // namespace
}  // namespace upg
