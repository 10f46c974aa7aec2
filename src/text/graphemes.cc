// The rules of UAX 29 over properties measured by scripts/tokenizer_unicode_tables.py.
#include "text/graphemes.h"

#include <algorithm>

#include "text/unicode.h"

namespace upg {
namespace {

// The bits of kGraphemeRanges.
constexpr uint32_t kJoins = 1 << 0;  // to what stands before: Extend, SpacingMark, the joiner
constexpr uint32_t kPrepend = 1 << 1;
constexpr uint32_t kControl = 1 << 2;  // with CR and LF
constexpr uint32_t kPictographic = 1 << 3;
constexpr uint32_t kExtend = 1 << 4;
constexpr uint32_t kConsonant = 1 << 5;
constexpr uint32_t kLinker = 1 << 6;
constexpr uint32_t kConjunctExtend = 1 << 7;
constexpr uint32_t kVowel = 1 << 8;  // of Hangul
constexpr uint32_t kLeading = 1 << 9;
// Not in the table.
constexpr uint32_t kTrailing = 1 << 10;
constexpr uint32_t kSyllable = 1 << 11;  // without a trailing consonant
constexpr uint32_t kClosedSyllable = 1 << 12;
constexpr uint32_t kRegional = 1 << 13;
constexpr uint32_t kJoiner = 0x200d;

uint32_t properties(uint32_t c) {
  if (c < 0x80) return c < 0x20 || c == 0x7f ? kControl : 0;
  if (c >= 0xac00 && c <= 0xd7a3) return (c - 0xac00) % 28 == 0 ? kSyllable : kClosedSyllable;
  if ((c >= 0x11a8 && c <= 0x11ff) || (c >= 0xd7cb && c <= 0xd7fb)) return kTrailing;
  if (c >= 0x1f1e6 && c <= 0x1f1ff) return kRegional;
  const auto after = std::upper_bound(kGraphemeRanges.begin(), kGraphemeRanges.end(), c,
                                      [](uint32_t value, const GraphemeRange& range) { return value < range.first; });
  if (after == kGraphemeRanges.begin() || c > std::prev(after)->last) return 0;
  return std::prev(after)->bits;
}

}  // namespace

std::string_view GraphemeWalk::next() {
  if (at_ == text_.size()) return {};
  const size_t begin = at_;
  uint32_t previous_value = 0;
  uint32_t previous = 0;
  size_t regional = 0;      // indicators at the end of the cluster
  bool pictograph = false;  // the cluster ends in a pictograph and its extenders
  bool joined = false;      // and a joiner after that
  bool consonant = false;   // the cluster ends in a consonant and what may follow it in a conjunct
  bool linked = false;      // with a linker among that
  while (at_ < text_.size()) {
    const CodePoint c = code_point_at(text_, at_);
    const uint32_t now = properties(c.value);
    if (at_ > begin) {
      bool together = false;
      if ((previous | now) & kControl) {
        together = previous_value == '\r' && c.value == '\n';
      } else if (previous & kLeading) {
        together = now & (kLeading | kVowel | kSyllable | kClosedSyllable);
      } else if (previous & (kSyllable | kVowel)) {
        together = now & (kVowel | kTrailing);
      } else if (previous & (kClosedSyllable | kTrailing)) {
        together = now & kTrailing;
      }
      if (!((previous | now) & kControl))
        together = together || (now & kJoins) || (previous & kPrepend) || (joined && (now & kPictographic)) ||
                   (linked && (now & kConsonant)) || ((now & kRegional) && regional % 2 == 1);
      if (!together) break;
    }
    joined = pictograph && c.value == kJoiner;
    pictograph = (now & kPictographic) || (pictograph && (now & kExtend));
    consonant = (now & kConsonant) || (consonant && (now & (kLinker | kConjunctExtend)));
    linked = consonant && !(now & kConsonant) && (linked || (now & kLinker));
    regional = now & kRegional ? regional + 1 : 0;
    previous = now;
    previous_value = c.value;
    at_ += c.bytes;
  }
  return text_.substr(begin, at_ - begin);
}

}  // namespace upg
