#include "export/gguf_pretokenizers.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"

namespace upg {
namespace {

using nlohmann::json;

// Patterns as the published tokenizer.json files have them.
#define UPG_LETTERS R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)"
#define UPG_REST R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define UPG_UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define UPG_LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define UPG_BEFORE R"([^\r\n\p{L}\p{N}]?)"
#define UPG_SHORT R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
#define UPG_SLASHED R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kThreeDigits = UPG_LETTERS R"(\p{N}{1,3})" UPG_REST;
constexpr std::string_view kOneDigit = UPG_LETTERS R"(\p{N})" UPG_REST;
constexpr std::string_view kO200k = UPG_BEFORE UPG_UPPER "*" UPG_LOWER "+" UPG_SHORT "|" UPG_BEFORE UPG_UPPER
                                                         "+" UPG_LOWER "*" UPG_SHORT R"(|\p{N}{1,3})" UPG_SLASHED;
constexpr std::string_view kTekken = UPG_BEFORE UPG_UPPER "*" UPG_LOWER "+|" UPG_BEFORE UPG_UPPER "+" UPG_LOWER
                                                          "*"
                                                          R"(|\p{N})" UPG_SLASHED;
constexpr std::string_view kDeepSeek =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
    "?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
#undef UPG_LETTERS
#undef UPG_REST
#undef UPG_UPPER
#undef UPG_LOWER
#undef UPG_BEFORE
#undef UPG_SHORT
#undef UPG_SLASHED

constexpr std::string_view kMarks = "llama.cpp cuts texts otherwise at combining marks that stand for themselves";

const std::vector<GgufPreTokenizer>& rows() {
  static const std::vector<GgufPreTokenizer> kRows = {
      {"gpt-2", false, {kGpt2}},
      {"dbrx", false, {kThreeDigits}},
      {"llama-bpe", true, {kThreeDigits}},
      {"qwen2", false, {kOneDigit}},
      {"gpt-4o", false, {kO200k}, kMarks},
      {"tekken", true, {kTekken}, kMarks},
      {"smollm", false, {"digit", kGpt2}},
      {"falcon", false, {"punctuation", kGpt2, "digits", "[0-9][0-9][0-9]"}},
      {"deepseek-v3", false, {R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+", kDeepSeek}},
  };
  return kRows;
}

// What each step cuts at, in the words of the rows; a step that llama.cpp could not know is given as it is.
void steps_of(const json& step, std::vector<std::string>& out) {
  const std::string type = step.is_object() ? step.value("type", "") : step.is_null() ? "" : step.dump();
  if (type == "Sequence") {
    for (const json& part : step.at("pretokenizers")) steps_of(part, out);
  } else if (type == "ByteLevel") {
    if (step.value("add_prefix_space", true)) out.emplace_back("a space before the text");
    if (step.value("use_regex", true)) out.emplace_back(kGpt2);
  } else if (type == "Digits") {
    out.emplace_back(step.value("individual_digits", false) ? "digit" : "digits");
  } else if (type == "Punctuation" && step.value("behavior", "Isolated") == "Contiguous") {
    out.emplace_back("punctuation");
  } else if (type == "Split" && step.at("pattern").contains("Regex")) {
    const bool invert = step.value("invert", false);
    const std::string behavior = step.value("behavior", "");
    const bool keeps = behavior == "Isolated" || (behavior == "Removed" && invert);  // every character stays
    const auto& pattern = step.at("pattern").at("Regex").get_ref<const std::string&>();
    out.push_back(keeps ? pattern : fmt::format("{} ({}{})", pattern, behavior, invert ? ", inverted" : ""));
  } else if (!step.is_null()) {
    out.push_back(step.dump());
  }
}

}  // namespace

const GgufPreTokenizer& gguf_pretokenizer(const json& pre_tokenizer, bool whole_first, bool matters,
                                          std::string_view where) {
  std::vector<std::string> steps;
  steps_of(pre_tokenizer, steps);
  const GgufPreTokenizer* found = nullptr;
  for (const GgufPreTokenizer& row : rows()) {
    if (!std::equal(steps.begin(), steps.end(), row.steps.begin(), row.steps.end())) continue;
    if (row.whole_first == whole_first) return row;
    if (!matters) found = &row;
  }
  if (found != nullptr) return *found;
  fail(ErrorCode::kUnsupported,
       "{}: cannot be exported to GGUF: llama.cpp has no pre-tokenizer that cuts texts at \"{}\"{}", where,
       fmt::join(steps, "\", \""), whole_first && matters ? " and takes whole tokens first" : "");
}

bool is_byte_level(const json& pre_tokenizer) {
  if (!pre_tokenizer.is_object()) return false;
  if (pre_tokenizer.value("type", "") == "ByteLevel") return true;
  if (pre_tokenizer.value("type", "") != "Sequence") return false;
  const json& parts = pre_tokenizer.at("pretokenizers");
  return std::any_of(parts.begin(), parts.end(), is_byte_level);
}

}  // namespace upg
