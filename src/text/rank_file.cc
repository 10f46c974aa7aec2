#include "text/rank_file.h"

#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "base/error.h"
#include "text/base64.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_source.h"
#include "text/unicode.h"

namespace upg {
namespace {

using nlohmann::json;

constexpr size_t kMaxRankTokenBytes = 1 << 10;
constexpr size_t kMaxMergeBytes = size_t{64} << 20;

#define UPG_LETTERS R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)"
#define UPG_REST R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
constexpr std::string_view kThreeDigits = UPG_LETTERS R"(\p{N}{1,3})" UPG_REST;
constexpr std::string_view kOneDigit = UPG_LETTERS R"(\p{N})" UPG_REST;
#undef UPG_LETTERS
#undef UPG_REST

void add_numbered(json& tokens, int32_t base, std::string_view name, int first, int end) {
  for (int i = first; i < end; ++i)
    tokens.push_back(special_token(base + static_cast<int32_t>(tokens.size()), fmt::format("<|{}_{}|>", name, i)));
}

void add_named(json& tokens, int32_t base, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names)
    tokens.push_back(special_token(base + static_cast<int32_t>(tokens.size()), name));
}

json llama3_specials(int32_t base) {
  json tokens = json::array();
  add_named(tokens, base, {"<|begin_of_text|>", "<|end_of_text|>"});
  add_numbered(tokens, base, "reserved_special_token", 0, 4);
  add_named(tokens, base, {"<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>"});
  add_numbered(tokens, base, "reserved_special_token", 5, 251);
  return tokens;
}

json qwen_specials(int32_t base) {
  json tokens = json::array();
  add_named(tokens, base, {"<|endoftext|>", "<|im_start|>", "<|im_end|>"});
  add_numbered(tokens, base, "extra", 0, 205);
  return tokens;
}

json cl100k_specials(int32_t base) {
  return {special_token(base + 1, "<|endoftext|>"), special_token(base + 2, "<|fim_prefix|>"),
          special_token(base + 3, "<|fim_middle|>"), special_token(base + 4, "<|fim_suffix|>"),
          special_token(base + 20, "<|endofprompt|>")};
}

struct FamilyRow {
  std::string_view file_name;
  std::string_view family;  // config.json's "model_type"; empty for any
  std::string_view pattern;
  bool composes;         // NFC
  std::string_view bos;  // put before texts; empty for none
  json (*specials)(int32_t base);
};
constexpr FamilyRow kFamilies[] = {
    {"tokenizer.model", "llama", kThreeDigits, false, "<|begin_of_text|>", llama3_specials},
    {"tokenizer.model", "mllama", kThreeDigits, false, "<|begin_of_text|>", llama3_specials},
    {"qwen.tiktoken", "", kOneDigit, true, "", qwen_specials},
    {"cl100k_base.tiktoken", "", kThreeDigits, false, "", cl100k_specials},
};

const FamilyRow& family_of(const VocabularySource& source) {
  const json& type = member(source.config, "model_type", "config.json");
  const std::string name = type.is_string() ? type.get<std::string>() : std::string();
  for (const FamilyRow& row : kFamilies)
    if (row.file_name == source.file_name && (row.family.empty() || row.family == name)) return row;
  fail(ErrorCode::kUnsupported,
       "{} a rank file of the model type \"{}\": this build does not know how that splits texts. Make a tokenizer.json "
       "with transformers",
       source.where, name);
}

class Ranks {
 public:
  Ranks(std::string_view text, std::string_view where) {
    size_t line = 0;
    while (!text.empty()) {
      ++line;
      const size_t end = std::min(text.find('\n'), text.size());
      read_line(text.substr(0, end), fmt::format("{} line {}", where, line));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    if (tokens_.empty()) fail(ErrorCode::kInvalidFile, "{} has no tokens", where);
  }

  const std::vector<std::pair<std::string, int32_t>>& sorted() {
    std::sort(tokens_.begin(), tokens_.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    return tokens_;
  }
  const int32_t* find(std::string_view token) const {
    const auto found = by_token_.find(std::string(token));
    return found == by_token_.end() ? nullptr : &found->second;
  }
  int32_t end() const { return end_; }

 private:
  void read_line(std::string_view line, const std::string& where) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) return;
    const size_t space = line.find(' ');
    const auto token = decode_base64(line.substr(0, space));
    if (space == std::string_view::npos || !token || token->empty())
      fail(ErrorCode::kInvalidFile, "{}: must be a token in base64, a space, and its rank", where);
    if (token->size() > kMaxRankTokenBytes)
      fail(ErrorCode::kUnsupported, "{}: a token of {} bytes; up to {} are supported", where, token->size(),
           kMaxRankTokenBytes);
    int32_t rank = 0;
    const std::string_view number = line.substr(space + 1);
    const auto parsed = std::from_chars(number.data(), number.data() + number.size(), rank);
    if (parsed.ec != std::errc() || parsed.ptr != number.data() + number.size() || rank < 0 || rank >= kMaxTokenId)
      fail(ErrorCode::kInvalidFile, "{}: \"{}\" is not a rank from 0 to {}", where, number, kMaxTokenId - 1);
    if (!by_token_.emplace(*token, rank).second) fail(ErrorCode::kInvalidFile, "{}: a token given twice", where);
    tokens_.emplace_back(*token, rank);
    end_ = std::max(end_, rank + 1);
  }

  std::vector<std::pair<std::string, int32_t>> tokens_;
  std::unordered_map<std::string, int32_t> by_token_;
  int32_t end_ = 0;
};

std::string spelled(std::string_view token) {
  std::string out;
  for (const char c : token) append_utf8(out, byte_level_character(static_cast<uint8_t>(c)));
  return out;
}

// tiktoken joins any two neighbours that make a token together, the lowest rank first: so each split of each token into
// two is a merge. Tokens that no merge can reach are there for whole pieces ("ignore_merges").
json model_of(Ranks& ranks, std::string_view where) {
  json vocabulary = json::object();
  json merges = json::array();
  size_t merge_bytes = 0;
  int32_t previous = -1;
  for (const auto& [token, rank] : ranks.sorted()) {
    if (rank == previous) fail(ErrorCode::kInvalidFile, "{} has the rank {} twice", where, rank);
    previous = rank;
    vocabulary[spelled(token)] = rank;
    std::vector<std::pair<std::pair<int32_t, int32_t>, size_t>> splits;
    for (size_t at = 1; at < token.size(); ++at) {
      const int32_t* left = ranks.find(std::string_view(token).substr(0, at));
      const int32_t* right = left ? ranks.find(std::string_view(token).substr(at)) : nullptr;
      if (right != nullptr) splits.push_back({{*left, *right}, at});
    }
    std::sort(splits.begin(), splits.end());
    for (const auto& [parts, at] : splits) {
      merges.push_back({spelled(token.substr(0, at)), spelled(token.substr(at))});
      merge_bytes += token.size();
    }
    if (merge_bytes > kMaxMergeBytes)
      fail(ErrorCode::kUnsupported, "{} has too many ways to make tokens of tokens", where);
  }
  return {{"type", "BPE"}, {"ignore_merges", true}, {"vocab", vocabulary}, {"merges", merges}};
}

}  // namespace

json rank_tokenizer(const VocabularySource& source) {
  const FamilyRow& family = family_of(source);
  Ranks ranks(source.contents, source.where);
  const json specials = added_tokens_of(source.tokenizer_config, family.specials(ranks.end()), "tokenizer_config.json");
  json before = json::array();
  for (const json& token : specials)
    if (!family.bos.empty() && token["content"] == family.bos) before.push_back(token);
  const json split = {{"type", "Split"},
                      {"pattern", json::object({{"Regex", family.pattern}})},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  return {
      {"version", "1.0"},
      {"added_tokens", specials},
      {"normalizer", family.composes ? json::object({{"type", "NFC"}}) : json()},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {split, byte_level}}}},
      {"post_processor", surrounding_template(before, json::array())},
      {"decoder", byte_level},
      {"model", model_of(ranks, source.where)},
  };
}

}  // namespace upg
