// Grapheme clusters (UAX 29, extended), as Hugging Face tokenizers cuts texts into them.
#pragma once

#include <cstddef>
#include <string_view>

namespace upg {

/// Walks over a text. Boundaries are exact inside and next to clusters of less than 6 bytes; no other user depends on
/// the rest, and the tables have only what can be measured there.
class GraphemeWalk {
 public:
  /// `text` is valid UTF-8 and must outlive this object.
  explicit GraphemeWalk(std::string_view text) : text_(text) {}

  /// The next cluster; empty at the end.
  std::string_view next();

 private:
  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace upg
