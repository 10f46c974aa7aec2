// SentencePiece models and rank files in place of a tokenizer.json.
#include "text/tokenizer_source.h"

#include "text/base64.h"
#include "text/tokenizer_test_data.h"

namespace upg {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

ModelTexts source(const std::string& file, const std::string& contents, const std::string& config = "{}",
                  const std::string& tokenizer_config = "") {
  ModelTexts texts;
  texts.config = config;
  texts.tokenizer_config = tokenizer_config;
  texts.vocabulary = contents;
  texts.vocabulary_file = file;
  return texts;
}

std::unique_ptr<Tokenizer> made(const ModelTexts& texts) {
  return Tokenizer::from_json(tokenizer_json(texts, "dir"), "dir: tokenizer.json");
}

// The 256 bytes, then "ab", "abc", "bc".
std::string small_ranks() {
  std::string lines;
  int rank = 0;
  const auto add = [&](const std::string& token) { lines += encode_base64(token) + fmt::format(" {}\n", rank++); };
  for (int b = 0; b < 256; ++b) add(std::string(1, static_cast<char>(b)));
  for (const char* token : {"ab", "abc", "bc"}) add(token);
  return lines;
}

const char* const kLlama = R"({"model_type": "llama"})";

TEST(TokenizerSource, a_tokenizer_json_goes_first) {
  ModelTexts texts = source("tokenizer.model", "x");
  texts.tokenizer = "{}";
  EXPECT_EQ(tokenizer_json(texts, "dir"), "{}");
  EXPECT_EQ(tokenizer_json(ModelTexts{}, "dir"), "");
}

TEST(TokenizerSource, ranks_are_merges_of_every_two_parts) {
  const auto tokenizer = made(source("cl100k_base.tiktoken", small_ranks()));
  EXPECT_EQ(tokenizer->encode("abc ab"), (Ids{257, ' ', 256}));
  EXPECT_EQ(tokenizer->encode("bcd"), (Ids{258, 'd'}));
  EXPECT_EQ(tokenizer->token_id("<|endoftext|>"), 260);
  EXPECT_EQ(tokenizer->token_id("<|endofprompt|>"), 279);
  EXPECT_EQ(tokenizer->decode(Ids{257, 0xc3, 0xa9}), "abc\u00e9");
}

TEST(TokenizerSource, llama_3_has_its_reserved_tokens_and_begins_texts) {
  const auto tokenizer = made(source("tokenizer.model", small_ranks(), kLlama));
  EXPECT_EQ(tokenizer->vocab_size(), 259 + 256);
  EXPECT_EQ(tokenizer->token_id("<|eot_id|>"), 259 + 9);
  EXPECT_EQ(tokenizer->token_id("<|reserved_special_token_250|>"), 259 + 255);
  EXPECT_EQ(tokenizer->encode("ab<|eot_id|>"), (Ids{259, 256, 268}));
}

TEST(TokenizerSource, qwen_composes_and_takes_digits_one_by_one) {
  const auto tokenizer = made(source("qwen.tiktoken", small_ranks()));
  EXPECT_EQ(tokenizer->encode("e\u030112"), (Ids{0xc3, 0xa9, '1', '2'}));
  EXPECT_EQ(tokenizer->token_id("<|extra_204|>"), 259 + 207);
}

TEST(TokenizerSource, tokenizer_config_names_the_special_tokens) {
  const auto tokenizer = made(source("tokenizer.model", small_ranks(), kLlama, R"({"added_tokens_decoder":
      {"259": {"content": "<|begin_of_text|>", "special": true}, "300": {"content": "[X]", "special": false}}})"));
  EXPECT_EQ(tokenizer->encode("ab[X]"), (Ids{259, 256, 300}));
  EXPECT_FALSE(tokenizer->is_special(300));
  EXPECT_EQ(tokenizer->token_id("<|eot_id|>"), std::nullopt);
}

TEST(TokenizerSource, ranks_of_unknown_families_are_refused) {
  try {
    made(source("tokenizer.model", small_ranks(), R"({"model_type": "curious"})"));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("curious"), std::string::npos);
  }
}

TEST(TokenizerSource, broken_rank_files_are_refused_by_line) {
  for (const char* lines : {"YQ==\n", "YQ== x\n", "YQ== -1\n", "YQ== 99999999999\n", "Y 1\n", "YQ== 1\nYQ== 2\n",
                            "YQ== 1\nYg== 1\n", " 1\n", "YQ== 1 2\n", "YQ== 4194304\n", "\n"}) {
    try {
      made(source("cl100k_base.tiktoken", lines));
      ADD_FAILURE() << lines;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).rfind("dir: cl100k_base.tiktoken: ", 0), 0u) << error.what();
    }
  }
}

TEST(TokenizerSource, a_sentencepiece_model_of_bpe_encodes_as_the_tokenizer_json_made_of_it) {
  const auto tokenizer =
      made(source("tokenizer.model", read_test_file("tests/data/tokenizers/sentencepiece-bpe.model"), kLlama));
  const json root = json::parse(read_test_file("tests/data/tokenizers/llama-2-like.vectors.json"));
  for (const json& vector : root["vectors"]) {
    const Ids ids = vector["ids"].get<Ids>();
    EXPECT_EQ(tokenizer->encode(vector["text"].get<std::string>()), ids) << vector.dump();
    EXPECT_EQ(tokenizer->decode(ids), vector["decoded"].get<std::string>()) << vector.dump();
  }
  EXPECT_EQ(tokenizer->token_bytes(*tokenizer->token_id("<0x0A>")), "\n");
  EXPECT_TRUE(tokenizer->is_special(*tokenizer->token_id("<s>")));
  EXPECT_FALSE(tokenizer->is_special(*tokenizer->token_id("<|user|>")));
}

// Ids of sentencepiece 0.2.
TEST(TokenizerSource, a_sentencepiece_model_of_unigram_encodes_as_sentencepiece_does) {
  const auto tokenizer =
      made(source("spiece.model", read_test_file("tests/data/tokenizers/sentencepiece-unigram.model")));
  const std::pair<const char*, Ids> known[] = {
      {"Hello world", {346, 515, 272, 259, 303, 298, 289, 266}},
      {"  two  spaces ", {557, 531, 267, 386, 260}},
      {"fa\u00e7ade \ufb01 \u2026", {323, 267, 198, 170, 375, 263, 323, 273, 259, 261, 261, 261}},
      {"e\u0301\u00a0x\u00ad", {259, 660, 259, 421}},
      {"\U0001f999", {259, 243, 162, 169, 156}},
      {"a\nb\tc", {276, 411, 330}},
      {"", {}},
  };
  for (const auto& [text, ids] : known) EXPECT_EQ(tokenizer->encode(text), ids) << text;
}

TEST(TokenizerSource, what_goes_around_a_text_is_for_the_configuration_to_say) {
  const std::string model = read_test_file("tests/data/tokenizers/sentencepiece-bpe.model");
  const auto around = [&](const char* config, const char* tokenizer_config) {
    const auto tokenizer = made(source("tokenizer.model", model, config, tokenizer_config));
    return std::pair(tokenizer->ids_before().size(), tokenizer->ids_after().size());
  };
  EXPECT_EQ(around("{}", ""), std::pair(size_t{0}, size_t{0}));
  EXPECT_EQ(around(kLlama, ""), std::pair(size_t{1}, size_t{0}));
  EXPECT_EQ(around(R"({"model_type": "t5"})", ""), std::pair(size_t{0}, size_t{1}));
  EXPECT_EQ(around(kLlama, R"({"add_bos_token": false, "add_eos_token": true})"), std::pair(size_t{0}, size_t{1}));
}

TEST(TokenizerSource, without_legacy_only_the_whole_text_has_a_prefix) {
  const std::string model = read_test_file("tests/data/tokenizers/sentencepiece-bpe.model");
  const auto pieces = [&](const char* tokenizer_config) {
    return made(source("tokenizer.model", model, "{}", tokenizer_config))->encode("the</s>the");
  };
  const Ids legacy = pieces("{}");
  const Ids ids = pieces(R"({"legacy": false})");
  EXPECT_EQ(legacy[0], legacy[2]);
  EXPECT_EQ(ids[0], legacy[0]);
  EXPECT_NE(ids[2], legacy[2]);
}

TEST(TokenizerSource, a_broken_sentencepiece_model_gives_a_tokenizer_or_an_error) {
  const std::string model = read_test_file("tests/data/tokenizers/sentencepiece-unigram.model");
  for (size_t size = 0; size < model.size(); size += 97) {
    try {
      made(source("tokenizer.model", model.substr(0, size), kLlama));
    } catch (const Error&) {
    }
  }
  for (size_t i = 0; i < model.size(); i += 41) {
    std::string flipped = model;
    flipped[i] = static_cast<char>(flipped[i] ^ (1 << i % 8));
    try {
      made(source("tokenizer.model", flipped, kLlama));
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace upg
