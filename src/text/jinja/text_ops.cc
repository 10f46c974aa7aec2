#include "text/jinja/text_ops.h"

#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "text/jinja/case_table.h"
#include "text/unicode.h"

namespace upg::jinja {
namespace {

utf8proc_category_t category(uint32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }
uint32_t simple_lower(uint32_t c) { return static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))); }
uint32_t simple_upper(uint32_t c) { return static_cast<uint32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))); }
uint32_t simple_title(uint32_t c) { return static_cast<uint32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))); }

bool is_lower(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_LL || c == 0xaa || c == 0xba; }
bool is_upper(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_LU; }
bool is_title(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_LT; }
bool is_cased(uint32_t c) { return is_lower(c) || is_upper(c) || is_title(c); }
bool is_decimal(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }
bool is_alpha(uint32_t c) { return category(c) >= UTF8PROC_CATEGORY_LU && category(c) <= UTF8PROC_CATEGORY_LO; }

bool is_numeric(uint32_t c) { return category(c) >= UTF8PROC_CATEGORY_ND && category(c) <= UTF8PROC_CATEGORY_NO; }

bool is_digit(uint32_t c) {
  static constexpr CodePointRange kSpecial[] = {{0xb2, 0xb3},     {0xb9, 0xb9},     {0x2070, 0x2070}, {0x2074, 0x2079},
                                                {0x2080, 0x2089}, {0x2460, 0x2468}, {0x2474, 0x247c}, {0x2488, 0x2490},
                                                {0x24ea, 0x24ea}, {0x24f5, 0x24fd}, {0x24ff, 0x24ff}, {0x2776, 0x277e},
                                                {0x2780, 0x2788}, {0x278a, 0x2792}};
  return is_decimal(c) || upg::contains(kSpecial, c);
}

// What stands between letters without ending a word, for the sigma at a word's end.
bool is_case_ignorable(uint32_t c) {
  static constexpr std::u32string_view kMarks = U"'.:^`\u00a8\u00ad\u00af\u00b4\u00b7\u00b8\u2018\u2019\u2024\u2027";
  const auto kind = category(c);
  return kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_ME || kind == UTF8PROC_CATEGORY_CF ||
         kind == UTF8PROC_CATEGORY_LM || kind == UTF8PROC_CATEGORY_SK || kMarks.find(c) != kMarks.npos;
}

std::vector<uint32_t> code_points(std::string_view text) {
  std::vector<uint32_t> out;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    out.push_back(c.value);
    at += c.bytes;
  }
  return out;
}

const LongCase* long_case(uint32_t c) {
  const auto found = std::lower_bound(kLongCases.begin(), kLongCases.end(), c,
                                      [](const LongCase& row, uint32_t value) { return row.code_point < value; });
  return found != kLongCases.end() && found->code_point == c ? &*found : nullptr;
}

void append_upper(std::string& out, uint32_t c) {
  if (const LongCase* row = long_case(c))
    out += row->upper;
  else
    append_utf8(out, simple_upper(c));
}

void append_title(std::string& out, uint32_t c) {
  if (const LongCase* row = long_case(c))
    out += row->title;
  else
    append_utf8(out, simple_title(c));
}

void append_lower(std::string& out, const std::vector<uint32_t>& text, size_t i) {
  const uint32_t c = text[i];
  if (c == 0x130) {
    out += "i\xcc\x87";
    return;
  }
  if (c != 0x3a3) return append_utf8(out, simple_lower(c));
  size_t before = i, after = i + 1;
  while (before > 0 && is_case_ignorable(text[before - 1])) --before;
  while (after < text.size() && is_case_ignorable(text[after])) ++after;
  const bool last = before > 0 && is_cased(text[before - 1]) && (after == text.size() || !is_cased(text[after]));
  append_utf8(out, last ? 0x3c2 : 0x3c3);
}

bool is_identifier_start(uint32_t c) { return c == '_' || is_alpha(c) || category(c) == UTF8PROC_CATEGORY_NL; }

bool is_identifier(const std::vector<uint32_t>& text) {
  const auto part = [](uint32_t c) {
    const auto kind = category(c);
    return is_identifier_start(c) || kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_MN ||
           kind == UTF8PROC_CATEGORY_MC || kind == UTF8PROC_CATEGORY_PC;
  };
  return !text.empty() && is_identifier_start(text[0]) && std::all_of(text.begin(), text.end(), part);
}

bool is_titled(const std::vector<uint32_t>& text) {
  bool after_cased = false, any = false;
  for (const uint32_t c : text) {
    if ((is_upper(c) || is_title(c)) && after_cased) return false;
    if (is_lower(c) && !after_cased) return false;
    after_cased = is_cased(c);
    any |= after_cased;
  }
  return any;
}

// All characters are so, and there is one.
template <bool (*kIs)(uint32_t)>
bool all(const std::vector<uint32_t>& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), kIs);
}

template <bool (*kIs)(uint32_t), bool (*kOther)(uint32_t)>
bool all_cased(const std::vector<uint32_t>& text) {
  return std::any_of(text.begin(), text.end(), kIs) &&
         std::none_of(text.begin(), text.end(), [](uint32_t c) { return kOther(c) || is_title(c); });
}

bool is_alnum(uint32_t c) { return is_alpha(c) || is_numeric(c); }

}  // namespace

int64_t count_code_points(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

size_t byte_offset(std::string_view text, int64_t index) {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += code_point_at(text, at).bytes;
  return at;
}

bool is_space(uint32_t c) { return (c >= 0x1c && c <= 0x1f) || is_white_space(c); }
bool is_word(uint32_t c) {
  if (c < 0x80) return c == '_' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
  return is_alnum(c);
}

bool is_printable(uint32_t c) {
  if (c < 0x7f) return c >= 0x20;
  const auto kind = category(c);
  if (kind != UTF8PROC_CATEGORY_CN)
    return kind != UTF8PROC_CATEGORY_CC && kind != UTF8PROC_CATEGORY_CF && kind != UTF8PROC_CATEGORY_CS &&
           kind != UTF8PROC_CATEGORY_CO && kind != UTF8PROC_CATEGORY_ZL && kind != UTF8PROC_CATEGORY_ZP &&
           kind != UTF8PROC_CATEGORY_ZS;
  return false;
}

bool is_line_end(uint32_t c) {
  return (c >= '\n' && c <= '\r') || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

std::string_view strip(std::string_view text, std::optional<std::string_view> chars, Sides sides) {
  const std::vector<uint32_t> set = code_points(chars.value_or(""));
  const auto removed = [&](uint32_t c) {
    return chars ? std::find(set.begin(), set.end(), c) != set.end() : is_space(c);
  };
  size_t begin = 0, end = text.size();
  while (sides != Sides::kRight && begin < end) {
    const CodePoint c = code_point_at(text, begin);
    if (!removed(c.value)) break;
    begin += c.bytes;
  }
  while (sides != Sides::kLeft && end > begin) {
    size_t last = end - 1;
    while (last > begin && (static_cast<uint8_t>(text[last]) & 0xc0) == 0x80) --last;
    if (!removed(code_point_at(text, last).value)) break;
    end = last;
  }
  return text.substr(begin, end - begin);
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> out;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    size_t end = at + c.bytes;
    if (!is_line_end(c.value)) {
      at = end;
      continue;
    }
    if (c.value == '\r' && end < text.size() && text[end] == '\n') ++end;
    out.push_back(text.substr(begin, (keep_ends ? end : at) - begin));
    begin = at = end;
  }
  if (begin < text.size()) out.push_back(text.substr(begin));
  return out;
}

std::vector<std::string_view> split(std::string_view text, std::optional<std::string_view> separator,
                                    int64_t max_split) {
  std::vector<std::string_view> out;
  const uint64_t most = max_split < 0 ? UINT64_MAX : static_cast<uint64_t>(max_split);
  if (separator) {
    while (out.size() < most) {
      const size_t found = text.find(*separator);
      if (found == std::string_view::npos) break;
      out.push_back(text.substr(0, found));
      text.remove_prefix(found + separator->size());
    }
    out.push_back(text);
    return out;
  }
  for (text = strip(text, {}, Sides::kLeft); !text.empty(); text = strip(text, {}, Sides::kLeft)) {
    if (out.size() == most) {
      out.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size() && !is_space(code_point_at(text, end).value)) end += code_point_at(text, end).bytes;
    out.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return out;
}

std::vector<std::string_view> split_right(std::string_view text, std::optional<std::string_view> separator,
                                          int64_t max_split) {
  if (max_split < 0) return split(text, separator, -1);
  std::vector<std::string_view> out;
  const uint64_t most = static_cast<uint64_t>(max_split);
  if (separator) {
    while (out.size() < most) {
      const size_t found = text.rfind(*separator);
      if (found == std::string_view::npos) break;
      out.push_back(text.substr(found + separator->size()));
      text = text.substr(0, found);
    }
    out.push_back(text);
  } else {
    for (text = strip(text, {}, Sides::kRight); !text.empty(); text = strip(text, {}, Sides::kRight)) {
      if (out.size() == most) {
        out.push_back(text);
        break;
      }
      size_t begin = text.size();
      while (begin > 0) {
        size_t last = begin - 1;
        while (last > 0 && (static_cast<uint8_t>(text[last]) & 0xc0) == 0x80) --last;
        if (is_space(code_point_at(text, last).value)) break;
        begin = last;
      }
      out.push_back(text.substr(begin));
      text = text.substr(0, begin);
    }
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::string upper(std::string_view text) {
  std::string out;
  for (const uint32_t c : code_points(text)) append_upper(out, c);
  return out;
}

std::string lower(std::string_view text) {
  std::string out;
  const auto all_points = code_points(text);
  for (size_t i = 0; i < all_points.size(); ++i) append_lower(out, all_points, i);
  return out;
}

std::string title(std::string_view text) {
  std::string out;
  bool after_cased = false;
  const auto all_points = code_points(text);
  for (size_t i = 0; i < all_points.size(); ++i) {
    if (after_cased)
      append_lower(out, all_points, i);
    else
      append_title(out, all_points[i]);
    after_cased = is_cased(all_points[i]);
  }
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  const auto all_points = code_points(text);
  for (size_t i = 0; i < all_points.size(); ++i) {
    if (i == 0)
      append_title(out, all_points[i]);
    else
      append_lower(out, all_points, i);
  }
  return out;
}

std::string swap_case(std::string_view text) {
  std::string out;
  const auto all_points = code_points(text);
  for (size_t i = 0; i < all_points.size(); ++i) {
    if (is_upper(all_points[i]))
      append_lower(out, all_points, i);
    else if (is_lower(all_points[i]))
      append_upper(out, all_points[i]);
    else
      append_utf8(out, all_points[i]);
  }
  return out;
}

bool text_is(std::string_view what, std::string_view text) {
  struct Row {
    std::string_view name;
    bool (*is)(const std::vector<uint32_t>&);
  };
  static constexpr Row kRows[] = {
      {"alpha", all<is_alpha>},
      {"alnum", all<is_alnum>},
      {"decimal", all<is_decimal>},
      {"digit", all<is_digit>},
      {"numeric", all<is_numeric>},
      {"space", all<is_space>},
      {"upper", all_cased<is_upper, is_lower>},
      {"lower", all_cased<is_lower, is_upper>},
      {"title", is_titled},
      {"identifier", is_identifier},
      {"ascii",
       [](const std::vector<uint32_t>& t) {
         return std::all_of(t.begin(), t.end(), [](uint32_t c) { return c < 0x80; });
       }},
      {"printable", [](const std::vector<uint32_t>& t) { return std::all_of(t.begin(), t.end(), is_printable); }},
  };
  const auto* row = std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.name == what; });
  return row != std::end(kRows) && row->is(code_points(text));
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    static constexpr std::pair<char, std::string_view> kEscapes[] = {
        {'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\'', "&#39;"}, {'"', "&#34;"}};
    const auto* row =
        std::find_if(std::begin(kEscapes), std::end(kEscapes), [&](auto& each) { return each.first == c; });
    if (row != std::end(kEscapes))
      out += row->second;
    else
      out += c;
  }
  return out;
}

std::optional<int64_t> parse_integer(std::string_view text, int64_t base, bool& too_large) {
  too_large = false;
  text = strip(text);
  const bool minus = text.starts_with('-');
  if (minus || text.starts_with('+')) text.remove_prefix(1);
  bool prefixed = false;
  if (text.size() > 1 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 0x20);
    const int64_t named = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (named != 0 && (base == named || base == 0)) {
      base = named;
      text.remove_prefix(2);
      prefixed = true;
    }
  }
  if (base == 0) {
    base = 10;
    if (text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") != std::string_view::npos) return {};
  }
  if (base < 2 || base > 36) return {};
  int64_t value = 0;
  bool digit_before = prefixed;  // an underscore may stand after a prefix
  bool any = false;
  for (const char c : text) {
    if (c == '_') {
      if (!digit_before) return {};
      digit_before = false;
      continue;
    }
    const char low = static_cast<char>(c | 0x20);
    const int64_t digit = c >= '0' && c <= '9' ? c - '0' : low >= 'a' && low <= 'z' ? low - 'a' + 10 : 99;
    if (digit >= base) return {};
    digit_before = any = true;
    // Built below zero, where there is one value more.
    if (__builtin_mul_overflow(value, base, &value) || __builtin_sub_overflow(value, digit, &value)) too_large = true;
  }
  if (!any || !digit_before) return {};
  if (!minus && value == std::numeric_limits<int64_t>::min()) too_large = true;
  if (too_large) return {};
  return minus ? value : -value;
}

std::optional<double> parse_float(std::string_view text) {
  text = strip(text);
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](size_t at) { return at < text.size() && text[at] >= '0' && text[at] <= '9'; };
    if (text[i] == '_') {
      if (i == 0 || !digit(i - 1) || !digit(i + 1)) return {};
      continue;
    }
    plain += text[i];
  }
  std::string_view rest = plain;
  const bool minus = rest.starts_with('-');
  if (minus || rest.starts_with('+')) rest.remove_prefix(1);
  if (rest.empty() || rest[0] == '-' || rest[0] == '+') return {};
  double value = 0;
  const std::string low = lower(rest);
  if (low == "inf" || low == "infinity") {
    value = std::numeric_limits<double>::infinity();
  } else if (low == "nan") {
    value = std::numeric_limits<double>::quiet_NaN();
  } else {
    if (rest[0] != '.' && (rest[0] < '0' || rest[0] > '9')) return {};
    if (rest.find_first_not_of("0123456789.eE+-") != std::string_view::npos) return {};
    char* end = nullptr;
    const std::string owned(rest);
    value = std::strtod(owned.c_str(), &end);
    if (end != owned.c_str() + owned.size()) return {};
  }
  return minus ? -value : value;
}

}  // namespace upg::jinja
