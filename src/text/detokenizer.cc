// See detokenizer.h.
#include "text/detokenizer.h"

#include "text/unicode.h"

namespace upg {

std::string StreamDetokenizer::push(int32_t id) {
  if (skip_special_ && tokenizer_.is_special(id)) return {};
  pending_ += tokenizer_.token_bytes(id);
  std::string text;
  pending_.erase(0, append_repaired_utf8(text, pending_, true));
  return text;
}

std::string StreamDetokenizer::finish() {
  std::string text;
  append_repaired_utf8(text, pending_, false);
  pending_.clear();
  return text;
}

}  // namespace upg
