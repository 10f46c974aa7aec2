// Token ids to text one by one, in whole characters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace upg {

/// All that push() and finish() return, put together, is Tokenizer::decode() of the ids pushed.
class StreamDetokenizer {
 public:
  /// `tokenizer` must outlive this object.
  explicit StreamDetokenizer(const Tokenizer& tokenizer, bool skip_special = true);

  /// The text that this token completes: valid UTF-8, empty where a character is still unfinished. Ill-formed bytes
  /// become U+FFFD. What may be stripped off the text's end is held back.
  std::string push(int32_t id);
  /// What is left at the end: U+FFFD for an unfinished character, or nothing.
  std::string finish();

 private:
  std::string stripped(std::string text);

  const Tokenizer& tokenizer_;
  bool skip_special_;
  bool first_ = true;    // no token yet
  size_t strip_start_;   // how many characters may still go at the beginning
  std::string pending_;  // the beginning of a character, up to 3 bytes
  std::string held_;     // characters that go if the text ends after them
};

}  // namespace upg
