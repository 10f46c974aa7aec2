// See detokenizer.h.
#include "text/detokenizer.h"

#include <utility>

#include "text/unicode.h"

namespace upg {

StreamDetokenizer::StreamDetokenizer(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(tokenizer), skip_special_(skip_special), strip_start_(tokenizer.edges().start) {}

std::string StreamDetokenizer::push(int32_t id) {
  if (!tokenizer_.has_token(id) || (skip_special_ && tokenizer_.is_special(id))) return {};
  // With byte fallback, tokens that are no bytes end an unfinished character. Hugging Face tokenizers makes U+FFFD of
  // all the bytes in a row if one is ill-formed, so that it could show nothing before the row ends; here, as in
  // SentencePiece, only the ill-formed ones become U+FFFD.
  const bool each_byte = tokenizer_.has_byte_tokens();
  std::string text;
  if (each_byte && !tokenizer_.is_byte(id)) {
    append_repaired_utf8(text, pending_, false, true);
    pending_.clear();
  }
  pending_ += std::exchange(first_, false) ? tokenizer_.first_token_bytes(id) : std::string(tokenizer_.token_bytes(id));
  pending_.erase(0, append_repaired_utf8(text, pending_, true, each_byte));
  return stripped(std::move(text));
}

std::string StreamDetokenizer::finish() {
  std::string text;
  append_repaired_utf8(text, pending_, false, tokenizer_.has_byte_tokens());
  pending_.clear();
  text = stripped(std::move(text));
  held_.clear();
  return text;
}

std::string StreamDetokenizer::stripped(std::string text) {
  const TextEdges& edges = tokenizer_.edges();
  if (edges.strip.empty() || text.empty()) return text;
  size_t begin = 0;
  while (strip_start_ > 0 && begin < text.size()) {
    if (!std::string_view(text).substr(begin).starts_with(edges.strip)) {
      strip_start_ = 0;
      break;
    }
    begin += edges.strip.size();
    --strip_start_;
  }
  text = std::exchange(held_, {}) + text.substr(begin);
  size_t end = text.size();
  for (size_t i = 0; i < edges.stop && std::string_view(text).substr(0, end).ends_with(edges.strip); ++i)
    end -= edges.strip.size();
  held_ = text.substr(end);
  text.resize(end);
  return text;
}

}  // namespace upg
