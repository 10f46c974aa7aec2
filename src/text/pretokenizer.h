// Pre-tokenizers: cut the text into the pieces ("words") that the model sees one by one.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace upg {

/// A text and the pieces of it that remain, in order. Steps narrow the pieces and may rewrite the text.
struct Pieces {
  std::string text;                              // valid UTF-8
  std::vector<std::pair<size_t, size_t>> spans;  // [begin, end) in `text`, none empty
  size_t at_start;  // leading bytes of `text` that come from the first character of the whole original text

  explicit Pieces(std::string whole, size_t from_start = 0) : text(std::move(whole)), at_start(from_start) {
    if (!text.empty()) spans.emplace_back(0, text.size());
  }
  std::string_view piece(size_t i) const {
    return std::string_view(text).substr(spans[i].first, spans[i].second - spans[i].first);
  }
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  /// Thread-safe. Throws Error(kInvalidFile) where a pattern needs unreasonable work on this text.
  virtual void split(Pieces& pieces) const = 0;
};

/// The "pre_tokenizer" of a tokenizer.json: null (no splitting) or an object whose type is in the list. `where` names
/// the field. Throws Error(kInvalidFile / kUnsupported).
std::unique_ptr<PreTokenizer> make_pretokenizer(const nlohmann::json& json, std::string_view where);

/// The byte-level alphabet of GPT-2: the character that stands for a byte, and back (-1 if none does).
uint32_t byte_level_character(uint8_t byte);
int byte_level_byte(uint32_t code_point);

}  // namespace upg
