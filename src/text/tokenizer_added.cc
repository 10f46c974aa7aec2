// Matching is leftmost, then longest, as in Hugging Face tokenizers; so are the rules of white space and words.
#include "text/tokenizer_added.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/pretokenizer_regex.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace upg {
namespace {

// A word character of Rust's regex crate, where the joiners count.
bool is_word(std::string_view character) {
  static const Regex kWord(R"([\w\x{200c}\x{200d}])", false, "added_tokens single_word");
  std::vector<Match> matches;
  kWord.find_all(character, matches);
  return !matches.empty() && matches[0].matched;
}

}  // namespace

void AddedTokens::Patterns::build() {
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 0; i < sorted.size(); ++i) {
    auto& [begin, end] = by_first_byte[static_cast<uint8_t>(sorted[i].first.front())];
    if (begin == end) begin = i;
    end = i + 1;
  }
}

std::optional<size_t> AddedTokens::Patterns::longest_at(std::string_view text) const {
  size_t begin = by_first_byte[static_cast<uint8_t>(text.front())].first;
  size_t end = by_first_byte[static_cast<uint8_t>(text.front())].second;
  std::optional<size_t> longest;
  for (size_t length = 1; begin < end; ++length) {
    if (sorted[begin].first.size() == length) longest = sorted[begin].second;
    if (length == text.size()) break;
    const uint8_t next = static_cast<uint8_t>(text[length]);
    // The byte after the common beginning; a pattern that ends there goes first.
    const auto byte_of = [&](size_t i) {
      const std::string_view pattern = sorted[i].first;
      return pattern.size() == length ? -1 : static_cast<int>(static_cast<uint8_t>(pattern[length]));
    };
    const auto first_not_below = [&](int byte) {
      size_t low = begin;
      size_t high = end;
      while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (byte_of(middle) < byte) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      return low;
    };
    const size_t new_end = first_not_below(next + 1);
    begin = first_not_below(next);
    end = new_end;
  }
  return longest;
}

void AddedTokens::read(const nlohmann::json& json, const Vocabulary& vocabulary, const Normalizer* normalizer,
                       std::string_view where) {
  tokens_.reserve(json.size());  // by_content_ has views of the contents
  for (size_t i = 0; i < json.size(); ++i) {
    const std::string path = fmt::format("{}[{}]", where, i);
    AddedToken token{
        .id = token_id_of(member(json[i], "id", path), path + ".id"),
        .content = string_member(json[i], "content", path),
        .pattern = {},
        .single_word = bool_member(json[i], "single_word", false, path),
        .lstrip = bool_member(json[i], "lstrip", false, path),
        .rstrip = bool_member(json[i], "rstrip", false, path),
        .normalized = bool_member(json[i], "normalized", true, path),
        .special = bool_member(json[i], "special", false, path),
    };
    if (token.content.empty()) continue;  // matches nothing in HF either
    if (token.content.size() > kMaxAddedTokenBytes)
      fail(ErrorCode::kUnsupported, "{}.content has {} bytes; up to {} are supported", path, token.content.size(),
           kMaxAddedTokenBytes);
    const auto in_vocabulary = vocabulary.find(token.content);
    const auto other = vocabulary.content(token.id);
    if (in_vocabulary ? *in_vocabulary != token.id : other.has_value())
      fail(ErrorCode::kInvalidFile, "{}: \"{}\" has the id {} here, but in the vocabulary {}", path, token.content,
           token.id,
           in_vocabulary ? fmt::format("the id {}", *in_vocabulary) : fmt::format("that id is \"{}\"", *other));
    token.pattern = token.normalized && normalizer != nullptr ? normalizer->normalized(token.content) : token.content;
    if (!by_id_.emplace(token.id, tokens_.size()).second)
      fail(ErrorCode::kInvalidFile, "{}: the id {} is given twice", path, token.id);
    tokens_.push_back(std::move(token));
    if (!by_content_.emplace(tokens_.back().content, tokens_.size() - 1).second)
      fail(ErrorCode::kInvalidFile, "{}: \"{}\" is given twice", path, tokens_.back().content);
    if (tokens_.back().special) special_.insert(tokens_.back().content);
  }
  for (size_t i = 0; i < tokens_.size(); ++i)
    if (!tokens_[i].pattern.empty()) patterns_[tokens_[i].normalized].sorted.emplace_back(tokens_[i].pattern, i);
  for (Patterns& patterns : patterns_) patterns.build();
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(content);
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

void AddedTokens::split(std::string_view text, bool normalized, bool parse_special, std::vector<TextPart>& out) const {
  const Patterns& patterns = patterns_[normalized];
  size_t covered = 0;
  size_t space_begin = 1;  // the last run of white space walked; none yet
  size_t space_end = 0;
  for (size_t at = 0; !patterns.sorted.empty() && at < text.size();) {
    const auto match = patterns.longest_at(text.substr(at));
    if (!match) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[*match];
    size_t begin = at;
    size_t end = at + token.pattern.size();
    at = end;
    if (token.special && !parse_special) continue;
    if (token.single_word && ((begin > 0 && is_word(last_character(text.substr(0, begin)))) ||
                              (end < text.size() && is_word(text.substr(end, code_point_at(text, end).bytes)))))
      continue;
    if (token.lstrip)
      begin = begin < covered ? covered : covered + white_space_begin(text.substr(covered, begin - covered));
    if (token.rstrip) {  // each run of white space is walked once, however many tokens match in it
      if (end < space_begin || end > space_end) {
        space_begin = end;
        space_end = end + white_space_end(text.substr(end));
      }
      end = space_end;
    }
    if (begin >= end) continue;  // wholly in the white space that the token before took
    if (covered < begin) out.push_back({text.substr(covered, begin - covered), std::nullopt});
    out.push_back({text.substr(begin, end - begin), token.id});
    covered = end;
  }
  if (covered != text.size()) out.push_back({text.substr(covered), std::nullopt});
}

}  // namespace upg
