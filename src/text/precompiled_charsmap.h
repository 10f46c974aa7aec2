// SentencePiece's "precompiled_charsmap": replacements of short texts, found by a double-array trie.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace upg {

class PrecompiledCharsmap {
 public:
  /// `bytes`: a 32-bit size of the trie in bytes, the trie, and the replacements, each ended by a zero byte. Every
  /// index in it is checked when it is used. Throws Error(kInvalidFile) naming `where`.
  PrecompiledCharsmap(std::string_view bytes, std::string_view where);

  /// What stands for the shortest beginning of `text` that the map has; nullopt where it has none. Valid UTF-8. Throws
  /// Error(kInvalidFile) for a trie that points outside of itself.
  std::optional<std::string_view> replacement(std::string_view text) const;

 private:
  uint32_t unit(size_t index) const;

  std::vector<uint32_t> trie_;
  std::string replacements_;
  std::string where_;
};

}  // namespace upg
