// UTF-8 reading and repair, and the code point sets in which Hugging Face tokenizers differs from PCRE2 and utf8proc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace upg {

struct CodePointRange {
  uint32_t first;
  uint32_t last;  // included
};

/// Code points of one general category or script that are unassigned in Unicode 14 (PCRE2 10.42) and matched by
/// `tokenizers`.
struct LateCodePoints {
  std::string_view name;  // "Lu", "Han"
  std::span<const CodePointRange> ranges;
};

extern const std::span<const LateCodePoints> kLateCodePoints;
extern const std::span<const CodePointRange> kNumeric;
extern const std::span<const CodePointRange> kPunctuation;
extern const std::span<const CodePointRange> kNormalizationBarriers;
extern const std::span<const CodePointRange> kDecomposing;
extern const std::span<const CodePointRange> kCompatibility;
extern const std::span<const CodePointRange> kAccents;

struct GraphemeRange {
  uint32_t first;
  uint32_t last;  // included
  uint32_t bits;  // graphemes.cc says which
};
extern const std::span<const GraphemeRange> kGraphemeRanges;

/// Letters whose lower case lies `delta` away, and that utf8proc may not know yet.
struct LateLowercase {
  uint32_t first;
  uint32_t last;  // included
  int32_t delta;
};
extern const std::span<const LateLowercase> kLateLowercase;

/// `ranges` is sorted.
bool contains(std::span<const CodePointRange> ranges, uint32_t code_point);

/// Unicode's White_Space, which is what \s means to `tokenizers`.
bool is_white_space(uint32_t code_point);

/// The last character of `text`, which is valid UTF-8 and not empty.
std::string_view last_character(std::string_view text);
/// Where the run of white space at the end of `text` begins.
size_t white_space_begin(std::string_view text);
/// Where the run of white space at the beginning of `text` ends.
size_t white_space_end(std::string_view text);

struct CodePoint {
  uint32_t value;
  uint32_t bytes;
};

/// The code point at `at`; `text` is valid UTF-8 and `at` stands on a character's first byte, before the end.
CodePoint code_point_at(std::string_view text, size_t at);

void append_utf8(std::string& out, uint32_t code_point);

/// Appends `bytes` to `out` with every ill-formed sequence (maximal subpart, as Python and Rust do) replaced by U+FFFD.
/// Returns the bytes consumed: all of them, except that with `more` an unfinished character at the end is left.
/// `each_byte`: a U+FFFD for each byte of such a sequence.
size_t append_repaired_utf8(std::string& out, std::string_view bytes, bool more, bool each_byte = false);

}  // namespace upg
