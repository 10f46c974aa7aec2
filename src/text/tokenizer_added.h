// Added tokens: found in the text as they stand, before the model sees it.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "text/tokenizer_model.h"
#include "text/tokenizer_normalizer.h"

namespace upg {

struct AddedToken {
  int32_t id;
  std::string content;
  std::string pattern;  // what to look for: the content, normalized where `normalized`
  bool single_word;     // not next to a word character
  bool lstrip;          // takes the white space before it
  bool rstrip;          // takes the white space after it
  bool normalized;      // looked for in the normalized text
  bool special;
};

/// A part of a text: an added token, or text between them.
struct TextPart {
  std::string_view text;
  std::optional<int32_t> id;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  AddedTokens(const AddedTokens&) = delete;
  AddedTokens& operator=(const AddedTokens&) = delete;

  /// Reads the "added_tokens" array. Throws Error(kInvalidFile) for ids that contradict the vocabulary or each other.
  void read(const nlohmann::json& json, const Vocabulary& vocabulary, const Normalizer* normalizer,
            std::string_view where);

  const std::vector<AddedToken>& all() const { return tokens_; }
  const AddedToken* find(std::string_view content) const;
  const AddedToken* find(int32_t id) const;
  bool is_special(std::string_view content) const { return special_.contains(content); }

  /// Appends the parts of `text` (valid UTF-8), looking for the tokens whose `normalized` is as given.
  void split(std::string_view text, bool normalized, bool parse_special, std::vector<TextPart>& out) const;

 private:
  // Patterns sorted by bytes, so that the longest match is found by narrowing a range.
  struct Patterns {
    std::vector<std::pair<std::string_view, size_t>> sorted;  // pattern, index in tokens_
    std::array<std::pair<size_t, size_t>, 256> by_first_byte{};

    void build();
    std::optional<size_t> longest_at(std::string_view text) const;
  };

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string_view, size_t> by_content_;
  std::unordered_map<int32_t, size_t> by_id_;
  std::unordered_set<std::string_view> special_;
  std::array<Patterns, 2> patterns_;  // by `normalized`
};

}  // namespace upg
