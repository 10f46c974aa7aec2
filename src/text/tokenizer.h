// Text to token ids and back, as a Hugging Face tokenizer.json says. Start here; the parts are lists in
// tokenizer_model.cc, pretokenizer.cc, tokenizer_normalizer.cc, tokenizer_decoder.cc and tokenizer_postprocessor.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace upg {

/// What is taken off the beginning and the end of a decoded text.
struct TextEdges {
  std::string strip;  // a character; empty for none
  size_t start = 0;   // up to so many of it
  size_t stop = 0;
};

class Tokenizer {
 public:
  /// Reads the text of a tokenizer.json; `where` names the file in errors. Its "truncation" and "padding" are not
  /// applied. Throws Error(kInvalidFile), or Error(kUnsupported) naming what this build lacks.
  static std::unique_ptr<Tokenizer> from_json(std::string_view json, std::string_view where);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// Ill-formed UTF-8 in `text` counts as U+FFFD. `add_special_tokens`: put what the post-processor puts around a text.
  /// `parse_special`: special tokens written out in the text become those tokens; without, they are plain text (for
  /// text from users). Thread-safe. Throws Error(kInvalidFile) where the file's patterns need unreasonable work on this
  /// text.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens = true, bool parse_special = true) const;

  /// StreamDetokenizer of all ids. Valid UTF-8: ill-formed bytes become U+FFFD. Unknown ids are left out, and with
  /// `skip_special` special tokens too.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  /// The bytes that a token stands for, perhaps half a character; empty for an unknown id.
  /// That of a token inside of a text: see first_token_bytes() and edges().
  std::string_view token_bytes(int32_t id) const;
  /// The same for the first token of a text, which may stand for less.
  std::string first_token_bytes(int32_t id) const;
  bool has_token(int32_t id) const;
  /// Whether some tokens are single bytes (byte fallback), so that the others are whole characters; and such a token.
  bool has_byte_tokens() const;
  bool is_byte(int32_t id) const;
  const TextEdges& edges() const;
  /// The id of a token as the file writes it (special tokens are written as they look).
  std::optional<int32_t> token_id(std::string_view content) const;
  bool is_special(int32_t id) const;
  int32_t vocab_size() const;  // highest id + 1

  /// What encode() puts before and after the text with `add_special_tokens`.
  std::span<const int32_t> ids_before() const;
  std::span<const int32_t> ids_after() const;
  bool adds_bos() const { return !ids_before().empty(); }

 private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace upg
