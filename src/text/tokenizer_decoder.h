// Decoders: what tokens stand for, and what happens where a text begins and ends.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace upg {

/// A chain of decoders in the form that a stream can follow: steps on single tokens, then bytes put together, then the
/// edges of the whole text.
struct TokenDecoder {
  /// Rewrites a token; `first` for the first of a text.
  using Step = std::function<std::string(std::string token, bool first)>;

  std::vector<Step> steps;
  bool first_differs = false;  // some step looks at `first`
  bool byte_fallback = false;  // tokens such as <0x0A> are bytes, and only they can be parts of characters
  std::string strip;           // a character; empty for none
  size_t strip_start = 0;      // how many of it are taken off the text's beginning
  size_t strip_stop = 0;

  /// `content` is a token as the file writes it (valid UTF-8).
  std::string text(std::string_view content, bool first) const;
  /// The byte that a token is which text() has given; -1 for any other token.
  int byte_of(std::string_view text) const;
};

/// The "decoder" of a tokenizer.json. `where` names the field. Throws Error(kInvalidFile / kUnsupported).
TokenDecoder make_token_decoder(const nlohmann::json& json, std::string_view where);

}  // namespace upg
