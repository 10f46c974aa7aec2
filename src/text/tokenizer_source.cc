#include "text/tokenizer_source.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "format/json.h"
#include "text/rank_file.h"
#include "text/sentencepiece_model.h"
#include "text/tokenizer_json.h"

namespace upg {
namespace {

using nlohmann::json;

// Lists of one element are written out as array() and object(): compilers read braces within braces in two ways.
// A template's entry for a special token, given as one of "added_tokens".
json template_piece(const json& token) {
  return json::object({{"SpecialToken", {{"id", token.at("content")}, {"type_id", 0}}}});
}

}  // namespace

json special_token(int32_t id, std::string_view content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

json surrounding_template(const json& before, const json& after) {
  if (before.empty() && after.empty()) return nullptr;
  json pieces = json::array();
  json names = json::object();
  const auto add = [&](const json& token) {
    pieces.push_back(template_piece(token));
    names[token.at("content").get<std::string>()] = {{"id", token.at("content")},
                                                     {"ids", json::array({token.at("id")})},
                                                     {"tokens", json::array({token.at("content")})}};
  };
  for (const json& token : before) add(token);
  pieces.push_back(json::object({{"Sequence", {{"id", "A"}, {"type_id", 0}}}}));
  for (const json& token : after) add(token);
  return {{"type", "TemplateProcessing"}, {"single", pieces}, {"pair", pieces}, {"special_tokens", names}};
}

json added_tokens_of(const json& tokenizer_config, json fallback, std::string_view where) {
  const std::string path = field_path(where, "added_tokens_decoder");
  const json& listed = member(tokenizer_config, "added_tokens_decoder", where);
  if (listed.is_null()) return fallback;
  if (!listed.is_object()) fail(ErrorCode::kInvalidFile, "{} must be an object", path);
  json tokens = json::array();
  for (const auto& [key, value] : listed.items()) {
    if (key.empty() || key.size() > 7 ||
        !std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; }))
      fail(ErrorCode::kInvalidFile, "{}: \"{}\" is not a token id", path, key);
    json token = special_token(std::stoi(key), string_member(value, "content", path));
    for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized", "special"})
      token[flag] = bool_member(value, flag, token[flag].get<bool>(), field_path(path, key));
    tokens.push_back(std::move(token));
  }
  std::sort(tokens.begin(), tokens.end(), [](const json& a, const json& b) { return a["id"] < b["id"]; });
  return tokens;
}

std::string tokenizer_json(const ModelTexts& texts, std::string_view where) {
  if (!texts.tokenizer.empty() || texts.vocabulary.empty()) return texts.tokenizer;
  const auto parsed = [&](const std::string& text, std::string_view name) {
    return text.empty() ? json::object() : parse_json_object(text, fmt::format("{}: {}", where, name));
  };
  const json config = parsed(texts.config, "config.json");
  const json tokenizer_config = parsed(texts.tokenizer_config, "tokenizer_config.json");
  const std::string file = fmt::format("{}: {}:", where, texts.vocabulary_file);
  const VocabularySource source{texts.vocabulary, texts.vocabulary_file, config, tokenizer_config, file};
  const json made = is_sentencepiece_model(texts.vocabulary) ? sentencepiece_tokenizer(source) : rank_tokenizer(source);
  return made.dump();
}

}  // namespace upg
