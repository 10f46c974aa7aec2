// Token ids to text one by one, in whole characters.
#pragma once

#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace upg {

/// All that push() and finish() return, put together, is Tokenizer::decode() of the ids pushed.
class StreamDetokenizer {
 public:
  /// `tokenizer` must outlive this object.
  explicit StreamDetokenizer(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  /// The text that this token completes: valid UTF-8, empty where a character is still unfinished. Ill-formed bytes
  /// become U+FFFD.
  std::string push(int32_t id);
  /// What is left at the end: U+FFFD for an unfinished character, or nothing.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  std::string pending_;  // the beginning of a character, up to 3 bytes
};

}  // namespace upg
