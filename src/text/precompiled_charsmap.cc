// A unit of the trie: bits 0 to 7 and 31 are the label (bit 31 marks a value), bit 8 says that a value hangs there, the
// rest is the offset to the children, with bit 9 in units of 256.
#include "text/precompiled_charsmap.h"

#include <algorithm>

#include "base/error.h"
#include "text/unicode.h"

namespace upg {
namespace {

uint32_t little_endian(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 4; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

}  // namespace

PrecompiledCharsmap::PrecompiledCharsmap(std::string_view bytes, std::string_view where) : where_(where) {
  if (bytes.size() < 4) fail(ErrorCode::kInvalidFile, "{} has {} bytes, too few for its header", where, bytes.size());
  const size_t units = little_endian(bytes, 0) / 4;
  if (units == 0 || units > (bytes.size() - 4) / 4)
    fail(ErrorCode::kInvalidFile, "{}: a trie of {} units in {} bytes", where, units, bytes.size());
  trie_.resize(units);
  for (size_t i = 0; i < units; ++i) trie_[i] = little_endian(bytes, 4 + 4 * i);
  const std::string_view rest = bytes.substr(4 + 4 * units);
  append_repaired_utf8(replacements_, rest, false);
  if (replacements_ != rest) fail(ErrorCode::kInvalidFile, "{}: its replacements are not UTF-8", where);
}

uint32_t PrecompiledCharsmap::unit(size_t index) const {
  if (index >= trie_.size()) fail(ErrorCode::kInvalidFile, "{}: the trie points outside of itself", where_);
  return trie_[index];
}

std::optional<std::string_view> PrecompiledCharsmap::replacement(std::string_view text) const {
  const auto offset = [](uint32_t unit) { return static_cast<size_t>(unit >> 10) << ((unit & 0x200) >> 6); };
  size_t node = offset(unit(0));
  for (const char c : text) {
    const uint8_t byte = static_cast<uint8_t>(c);
    if (byte == 0) break;
    node ^= byte;
    const uint32_t here = unit(node);
    if ((here & 0x800000ff) != byte) break;
    node ^= offset(here);
    if ((here >> 8 & 1) == 0) continue;
    const size_t begin = unit(node) & 0x7fffffff;
    if (begin > replacements_.size() ||
        (begin < replacements_.size() && (static_cast<uint8_t>(replacements_[begin]) & 0xc0) == 0x80))
      fail(ErrorCode::kInvalidFile, "{}: the trie points outside of its replacements", where_);
    return std::string_view(replacements_)
        .substr(begin, std::min(replacements_.find('\0', begin), replacements_.size()) - begin);
  }
  return std::nullopt;
}

}  // namespace upg
