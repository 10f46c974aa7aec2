// Filters of texts. A subject that is no text counts as its str().
#include <algorithm>
#include <cmath>

#include "text/jinja/builtins.h"
#include "text/jinja/text_ops.h"
#include "text/unicode.h"

namespace upg::jinja {
namespace {

// str() of a subject that stays markup if it is.
struct Subject {
  Subject(Runtime& rt, const Value& value) : text(to_text(rt, value)), markup(value.is_markup()) {
    rt.step(text.size() / 16);
    rt.charge(text.size());
  }
  std::string text;
  bool markup;
};

template <std::string (*kChange)(std::string_view)>
Value changed(Runtime& rt, const Value& value, const Arguments&) {
  const Subject s(rt, value);
  return rt.text(kChange(s.text), s.markup);
}

const std::string& need_text(Runtime& rt, const Value& value) {
  if (value.is_undefined()) rt.fail_undefined(value);
  if (!value.is_string()) rt.fail("expected a text, not {}", type_name(value));
  return value.as_string();
}

// Words begin after white space and opening brackets, not after every character that is no letter.
std::string title_words(std::string_view text) {
  std::string out;
  size_t begin = 0;
  const auto finish = [&](size_t end) {
    const std::string_view word = text.substr(begin, end - begin);
    if (word.empty()) return;
    const size_t first = code_point_at(word, 0).bytes;
    out += upper(word.substr(0, first)) + lower(word.substr(first));
  };
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const bool between =
        is_space(c.value) ||
        (c.value < 0x80 && std::string_view("-({[<").find(static_cast<char>(c.value)) != std::string_view::npos);
    if (between) {
      finish(at);
      out.append(text, at, c.bytes);
      begin = at + c.bytes;
    }
    at += c.bytes;
  }
  finish(text.size());
  return out;
}

Value do_escape(Runtime& rt, const Value& value, const Arguments&) {
  if (value.is_markup()) return value;
  return rt.text(escape_html(Subject(rt, value).text), true);
}

Value do_trim(Runtime& rt, const Value& value, const Arguments& a) {
  const Subject s(rt, value);
  const auto chars = a.given(0) ? std::optional<std::string_view>(a.text(0)) : std::nullopt;
  return rt.text(std::string(strip(s.text, chars)), s.markup);
}

Value do_center(Runtime& rt, const Value& value, const Arguments& a) {
  CallArguments width;
  width.positional.push_back(a.value(0, Value::integer(80)));
  return rt.call(rt.attribute(rt.text(Subject(rt, value).text), "center"), width);
}

Value do_replace(Runtime& rt, const Value& value, const Arguments& a) {
  CallArguments given;
  given.positional = {rt.text(a.string(0, "")), rt.text(a.string(1, ""))};
  if (a.given(2)) given.positional.push_back(a.at(2));
  return rt.call(rt.attribute(rt.text(to_text(rt, value)), "replace"), given);
}

Value do_join(Runtime& rt, const Value& value, const Arguments& a) {
  Value items = value;
  if (a.given(1)) {
    if (!is_iterable(value)) rt.fail("'{}' object is not iterable", type_name(value));
    CallArguments given;
    given.named.emplace_back("attribute", a.at(1));
    items = rt.apply_filter("map", value, given);
  }
  return rt.text(join(rt, a.string(0, ""), items, false));
}

Value do_indent(Runtime& rt, const Value& value, const Arguments& a) {
  const std::string& text = need_text(rt, value);
  const bool by_text = a.has(0) && a.at(0).is_string();
  const int64_t width = by_text ? 0 : std::max<int64_t>(a.integer(0, 4), 0);
  rt.check_text(static_cast<uint64_t>(width));
  const std::string indent = by_text ? a.at(0).as_string() : std::string(static_cast<size_t>(width), ' ');
  const bool blank = a.truth(2, false);
  const std::string ended = text + "\n";
  std::string out = a.truth(1, false) ? indent : "";
  bool first = true;
  for (const std::string_view line : split_lines(ended)) {
    rt.step();
    if (!first) {
      out += '\n';
      if (blank || !line.empty()) out += indent;
    }
    out += line;
    rt.check_text(out.size());
    first = false;
  }
  return rt.text(std::move(out), value.is_markup());
}

Value do_truncate(Runtime& rt, const Value& value, const Arguments& a) {
  const int64_t length = a.integer(0, 255), leeway = a.given(3) ? a.integer(3, 5) : 5;
  const std::string end = a.string(2, "...");
  const int64_t kept = length - count_code_points(end);
  if (kept < 0) rt.fail("expected length >= {}, got {}", length - kept, length);
  if (leeway < 0) rt.fail("expected leeway >= 0, got {}", leeway);
  const auto size = length_of(rt, value);
  if (!size) rt.fail("object of type '{}' has no len()", type_name(value));
  if (*size - length <= leeway) return value;
  const std::string& text = need_text(rt, value);
  const std::string_view cut = std::string_view(text).substr(0, byte_offset(text, kept));
  if (a.truth(1, false)) return rt.text(std::string(cut) + end);
  return rt.text(std::string(split_right(cut, " ", 1)[0]) + end);
}

Value do_wordcount(Runtime& rt, const Value& value, const Arguments&) {
  const Subject s(rt, value);
  int64_t count = 0;
  bool inside = false;
  for (size_t at = 0; at < s.text.size();) {
    const CodePoint c = code_point_at(s.text, at);
    count += is_word(c.value) && !inside;
    inside = is_word(c.value);
    at += c.bytes;
  }
  return Value::integer(count);
}

// Pieces of a line that may be parted: white space, and words up to a hyphen between letters.
std::vector<std::string> wrap_chunks(std::string_view line, bool at_hyphens) {
  const auto space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  const auto letter = [](char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; };
  std::vector<std::string> chunks;
  for (size_t i = 0; i < line.size(); ++i) {
    const bool new_kind = i > 0 && space(line[i]) != space(line[i - 1]);
    const bool hyphen = at_hyphens && i > 2 && line[i - 1] == '-' && letter(line[i - 2]) && letter(line[i - 3]) &&
                        letter(line[i]) && i + 1 < line.size() && letter(line[i + 1]);
    if (i == 0 || new_kind || hyphen) chunks.emplace_back();
    chunks.back() += line[i];
  }
  return chunks;
}

std::vector<std::string> wrap_line(std::string_view line, int64_t width, bool break_words, bool at_hyphens) {
  std::vector<std::string> chunks = wrap_chunks(line, at_hyphens), lines;
  const auto blank = [](const std::string& chunk) { return strip(chunk).empty(); };
  std::reverse(chunks.begin(), chunks.end());
  while (!chunks.empty()) {
    std::vector<std::string> current;
    int64_t length = 0;
    if (!lines.empty() && blank(chunks.back())) chunks.pop_back();
    while (!chunks.empty() && length + count_code_points(chunks.back()) <= width) {
      length += count_code_points(chunks.back());
      current.push_back(std::move(chunks.back()));
      chunks.pop_back();
    }
    if (!chunks.empty() && count_code_points(chunks.back()) > width) {
      std::string& chunk = chunks.back();
      if (break_words) {
        size_t cut = byte_offset(chunk, std::max<int64_t>(width - length, 1));
        const size_t hyphen = at_hyphens && cut > 0 ? chunk.rfind('-', cut - 1) : std::string::npos;
        if (hyphen != std::string::npos && hyphen > 0 && chunk.find_first_not_of('-') < hyphen) cut = hyphen + 1;
        current.push_back(chunk.substr(0, cut));
        chunk.erase(0, cut);
        if (chunk.empty()) chunks.pop_back();
      } else if (current.empty()) {
        current.push_back(std::move(chunk));
        chunks.pop_back();
      }
    }
    if (!current.empty() && blank(current.back())) current.pop_back();
    if (current.empty()) continue;
    lines.emplace_back();
    for (const std::string& chunk : current) lines.back() += chunk;
  }
  return lines;
}

Value do_wordwrap(Runtime& rt, const Value& value, const Arguments& a) {
  const std::string& text = need_text(rt, value);
  const int64_t width = a.integer(0, 79);
  if (width < 1) rt.fail("invalid width {} (must be > 0)", width);
  const std::string between = a.given(2) ? a.string(2, "\n") : "\n";
  std::string out;
  bool first = true;
  rt.step(text.size());
  for (const std::string_view line : split_lines(text)) {
    if (!first) out += between;
    first = false;
    const auto wrapped = wrap_line(line, width, a.truth(1, true), a.truth(3, true));
    for (size_t i = 0; i < wrapped.size(); ++i) {
      if (i > 0) out += between;
      out += wrapped[i];
      rt.check_text(out.size());
    }
  }
  return rt.text(std::move(out));
}

Value do_filesizeformat(Runtime& rt, const Value& value, const Arguments& a) {
  if (value.is_undefined()) rt.fail_undefined(value);
  const auto bytes = python_float(rt, value);
  if (!bytes) rt.fail("could not convert {} to float", type_name(value));
  const bool binary = a.truth(0, false);
  const double base = binary ? 1024 : 1000;
  if (*bytes == 1) return rt.text("1 Byte");
  if (*bytes < base) return rt.text(fmt::format("{} Bytes", static_cast<int64_t>(std::max(*bytes, -9e18))));
  constexpr std::string_view kPrefixes = "kMGTPEZY";
  double unit = base;
  size_t i = 0;
  do unit *= base;
  while (*bytes >= unit && ++i < kPrefixes.size() - 1);
  if (*bytes >= unit) unit = std::pow(base, 9);
  const std::string prefix =
      binary ? fmt::format("{}iB", i == 0 ? 'K' : kPrefixes[i]) : fmt::format("{}B", kPrefixes[i]);
  return rt.text(fmt::format("{:.1f} {}", base * *bytes / unit, prefix));
}

std::string quote_url(std::string_view text, bool query) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    const bool plain = byte < 0x80 && (is_word(byte) || c == '.' || c == '-' || c == '~' || (!query && c == '/'));
    if (query && c == ' ')
      out += '+';
    else if (plain)
      out += c;
    else
      out += fmt::format("%{:02X}", byte);
  }
  return out;
}

Value do_urlencode(Runtime& rt, const Value& value, const Arguments&) {
  if (value.is_string() || !is_iterable(value)) return rt.text(quote_url(to_text(rt, value), false));
  CallArguments none;
  const Value items = value.is(Kind::kDict) ? rt.apply_filter("items", value, none) : value;
  std::string out;
  for (const Value& item : to_vector(rt, items)) {
    const std::vector<Value> pair = to_vector(rt, item);
    if (pair.size() != 2) rt.fail("urlencode() needs pairs");
    if (!out.empty()) out += '&';
    out += quote_url(to_text(rt, pair[0]), true) + "=" + quote_url(to_text(rt, pair[1]), true);
  }
  return rt.text(std::move(out));
}

Value do_format(Runtime& rt, const Value& value, const Arguments& a) {
  CallArguments& given = a.rest();
  if (!given.positional.empty() && !given.named.empty())
    rt.fail("format() can't handle positional and keyword arguments at the same time");
  Value arguments;
  if (given.named.empty()) {
    arguments = rt.tuple(given.positional);
  } else {
    auto dict = std::make_shared<DictData>();
    for (const auto& [name, each] : given.named) dict->set(Value::text(name), each);
    arguments = rt.dict(std::move(dict));
  }
  return rt.text(percent_format(rt, to_text(rt, value), arguments), value.is_markup());
}

constexpr Filter kFilters[] = {
    {"capitalize", "", 0, changed<capitalize>},
    {"center", "width", 0, do_center},
    {"e", "", 0, do_escape},
    {"escape", "", 0, do_escape},
    {"filesizeformat", "binary", 0, do_filesizeformat},
    {"forceescape", "", 0,
     [](Runtime& rt, const Value& v, const Arguments&) { return rt.text(escape_html(Subject(rt, v).text), true); }},
    {"format", "*", 0, do_format},
    {"indent", "width first blank", 0, do_indent},
    {"join", "d attribute", 0, do_join},
    {"lower", "", 0, changed<lower>},
    {"replace", "old new count", 2, do_replace},
    {"safe", "", 0, [](Runtime& rt, const Value& v, const Arguments&) { return rt.text(to_text(rt, v), true); }},
    {"string", "", 0,
     [](Runtime& rt, const Value& v, const Arguments&) { return v.is_string() ? v : rt.text(to_text(rt, v)); }},
    {"title", "", 0, changed<title_words>},
    {"trim", "chars", 0, do_trim},
    {"truncate", "length killwords end leeway", 0, do_truncate},
    {"upper", "", 0, changed<upper>},
    {"urlencode", "", 0, do_urlencode},
    {"wordcount", "", 0, do_wordcount},
    {"wordwrap", "width break_long_words wrapstring break_on_hyphens", 0, do_wordwrap},
};

}  // namespace

const std::span<const Filter> kTextFilters{kFilters};

std::string join(Runtime& rt, std::string_view separator, const Value& items, bool only_texts) {
  std::string out;
  bool first = true;
  const auto cursor = iterate(rt, items);
  for (Value each; cursor->next(rt, each); first = false) {
    rt.step();
    if (!first) out += separator;
    if (only_texts && !each.is_string()) rt.fail("sequence item: expected str instance, {} found", type_name(each));
    out += to_text(rt, each);
    rt.check_text(out.size());
  }
  return out;
}

}  // namespace upg::jinja
