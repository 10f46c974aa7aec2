// Texts as Python has them: sequences of code points, in UTF-8.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace upg::jinja {

int64_t count_code_points(std::string_view text);
/// Byte offset of the code point `index`, at most the end.
size_t byte_offset(std::string_view text, int64_t index);

bool is_space(uint32_t code_point);  // str.isspace
bool is_word(uint32_t code_point);   // \w of regular expressions: letters, numbers and _
bool is_printable(uint32_t code_point);
bool is_line_end(uint32_t code_point);  // where splitlines cuts

enum class Sides { kLeft, kRight, kBoth };
/// `chars`: the code points to remove; white space without.
std::string_view strip(std::string_view text, std::optional<std::string_view> chars = {}, Sides sides = Sides::kBoth);

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends = false);
/// With no separator at runs of white space. `max_split` below 0: all.
std::vector<std::string_view> split(std::string_view text, std::optional<std::string_view> separator,
                                    int64_t max_split);
std::vector<std::string_view> split_right(std::string_view text, std::optional<std::string_view> separator,
                                          int64_t max_split);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string title(std::string_view text);
std::string capitalize(std::string_view text);
std::string swap_case(std::string_view text);

/// str.isupper and so on; `what` is a row of the list in text_ops.cc ("upper", "alpha").
bool text_is(std::string_view what, std::string_view text);

std::string escape_html(std::string_view text);

std::optional<int64_t> parse_integer(std::string_view text, int64_t base, bool& too_large);
std::optional<double> parse_float(std::string_view text);

}  // namespace upg::jinja
