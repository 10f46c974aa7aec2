// The notations of protocol 0: numbers and strings as lines of text. Each returns nothing where the text is not well
// formed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace upg::pickle {

/// "-12"; surrounding spaces, signs of plus and underscores are not taken.
std::optional<int64_t> read_decimal(std::string_view line);
/// "0.5", "1e-05", "inf", "nan".
std::optional<double> read_real(std::string_view line);
/// 'ab\x00\n' or "ab", as repr() writes Python 2's str.
std::optional<std::string> read_quoted(std::string_view line);
/// a\u0394 as UTF-8: the encoding raw-unicode-escape, whose other bytes are Latin-1.
std::optional<std::string> read_raw_unicode(std::string_view line);
/// Characters below 256 as bytes.
std::optional<std::string> utf8_to_latin1(std::string_view text);

}  // namespace upg::pickle
