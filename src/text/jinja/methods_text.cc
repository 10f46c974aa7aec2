// Methods of texts, as Python's str has them.
#include <algorithm>

#include "text/jinja/builtins.h"
#include "text/jinja/text_ops.h"
#include "text/unicode.h"

namespace upg::jinja {
namespace {

// Steps and bytes for going through the text once.
const std::string& text_of(Runtime& rt, const Value& self) {
  rt.step(self.as_string().size() / 16);
  return self.as_string();
}

Value made(Runtime& rt, const Value& self, std::string text) { return rt.text(std::move(text), self.is_markup()); }

template <std::string (*kChange)(std::string_view)>
Value changed(Runtime& rt, const Value& self, const Arguments&) {
  return made(rt, self, kChange(text_of(rt, self)));
}

template <Sides kSides>
Value stripped(Runtime& rt, const Value& self, const Arguments& a) {
  const auto chars = a.given(0) ? std::optional<std::string_view>(a.text(0)) : std::nullopt;
  rt.step(chars.value_or("").size() * self.as_string().size() / 256);
  return made(rt, self, std::string(strip(text_of(rt, self), chars, kSides)));
}

Value list_of(Runtime& rt, const Value& self, const std::vector<std::string_view>& parts) {
  std::vector<Value> items;
  for (const std::string_view part : parts) {
    rt.step();
    items.push_back(made(rt, self, std::string(part)));
  }
  return rt.list(std::move(items));
}

template <bool kRight>
Value split_text(Runtime& rt, const Value& self, const Arguments& a) {
  const auto separator = a.given(0) ? std::optional<std::string_view>(a.text(0)) : std::nullopt;
  if (separator && separator->empty()) rt.fail("empty separator");
  const int64_t most = a.integer(1, -1);
  const std::string& text = text_of(rt, self);
  return list_of(rt, self, kRight ? split_right(text, separator, most) : split(text, separator, most));
}

Value split_into_lines(Runtime& rt, const Value& self, const Arguments& a) {
  return list_of(rt, self, split_lines(text_of(rt, self), a.truth(0, false)));
}

// The part of a text that find() and others look at, from their arguments `i` and `i + 1`; nullopt where it begins
// behind the end.
struct Part {
  std::string_view text;
  int64_t begin;  // in code points
};
std::optional<Part> part_of(Runtime& rt, const Value& self, const Arguments& a, size_t i) {
  const std::string& text = text_of(rt, self);
  if (!a.given(i) && !a.given(i + 1)) return Part{text, 0};
  const int64_t size = count_code_points(text);
  const auto place = [&](size_t at, int64_t otherwise) {
    const int64_t given = a.given(at) ? a.integer(at, 0) : otherwise;
    return given < 0 ? std::max<int64_t>(given, -size) + size : given;
  };
  const int64_t begin = place(i, 0), end = std::min(place(i + 1, size), size);
  if (begin > size || begin > end) return std::nullopt;
  const size_t from = byte_offset(text, begin);
  const std::string_view rest = std::string_view(text).substr(from);
  return Part{rest.substr(0, byte_offset(rest, end - begin)), begin};
}

template <bool kLast, bool kMust>
Value find(Runtime& rt, const Value& self, const Arguments& a) {
  const std::string& wanted = a.text(0);
  if (const auto part = part_of(rt, self, a, 1)) {
    const size_t at = kLast ? part->text.rfind(wanted) : part->text.find(wanted);
    if (at != std::string_view::npos) return Value::integer(part->begin + count_code_points(part->text.substr(0, at)));
  }
  if (kMust) rt.fail("substring not found");
  return Value::integer(-1);
}

Value count(Runtime& rt, const Value& self, const Arguments& a) {
  const std::string& wanted = a.text(0);
  const auto part = part_of(rt, self, a, 1);
  if (!part) return Value::integer(0);
  if (wanted.empty()) return Value::integer(count_code_points(part->text) + 1);
  int64_t found = 0;
  for (size_t at = part->text.find(wanted); at != std::string_view::npos;
       at = part->text.find(wanted, at + wanted.size()))
    ++found;
  return Value::integer(found);
}

template <bool kStart>
Value begins_or_ends(Runtime& rt, const Value& self, const Arguments& a) {
  std::vector<Value> wanted{a.at(0)};
  if (a.at(0).is(Kind::kTuple)) wanted = a.at(0).items();
  const auto part = part_of(rt, self, a, 1);
  bool any = false;
  for (const Value& each : wanted) {
    if (each.is_undefined()) rt.fail_undefined(each);
    if (!each.is_string())
      rt.fail("{} first arg must be str or a tuple of str, not {}", kStart ? "startswith" : "endswith",
              type_name(each));
    rt.step();
    any |= part && (kStart ? part->text.starts_with(each.as_string()) : part->text.ends_with(each.as_string()));
  }
  return Value::boolean(any);
}

Value replace(Runtime& rt, const Value& self, const Arguments& a) {
  const std::string &old = a.text(0), &fresh = a.text(1);
  const int64_t most = a.integer(2, -1);
  const std::string& text = text_of(rt, self);
  std::string out;
  size_t at = 0;
  for (int64_t done = 0; most < 0 || done < most; ++done) {
    const size_t found = text.find(old, at);
    if (found == std::string::npos) break;
    rt.step();
    out.append(text, at, found - at);
    out += fresh;
    at = found + old.size();
    if (old.empty()) {
      // Between all characters, and at both ends.
      if (at >= text.size()) break;
      const size_t bytes = code_point_at(text, at).bytes;
      out.append(text, at, bytes);
      at += bytes;
    }
    rt.check_text(out.size());
  }
  out.append(text, std::min(at, text.size()), std::string::npos);
  return made(rt, self, std::move(out));
}

Value join_items(Runtime& rt, const Value& self, const Arguments& a) {
  return made(rt, self, join(rt, self.as_string(), a.at(0), true));
}

// -1: text to the left, 0: in the middle, 1: to the right.
template <int kSide>
Value padded(Runtime& rt, const Value& self, const Arguments& a) {
  const std::string& text = text_of(rt, self);
  const std::string fill = a.has(1) ? a.text(1) : " ";
  if (count_code_points(fill) != 1) rt.fail("the fill character must be exactly one character long");
  const int64_t width = a.integer(0, 0), space = width - count_code_points(text);
  if (width <= 0 || space <= 0) return self;
  rt.check_text(static_cast<uint64_t>(space));
  rt.check_text(text.size() + static_cast<uint64_t>(space) * fill.size());
  const int64_t left = kSide < 0 ? 0 : kSide > 0 ? space : space / 2 + (space & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += text;
  for (int64_t i = left; i < space; ++i) out += fill;
  return made(rt, self, std::move(out));
}

Value zfill(Runtime& rt, const Value& self, const Arguments& a) {
  const std::string& text = text_of(rt, self);
  const int64_t space = a.integer(0, 0) - count_code_points(text);
  if (a.integer(0, 0) <= 0 || space <= 0) return self;
  rt.check_text(static_cast<uint64_t>(space));
  const size_t sign = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
  return made(rt, self, text.substr(0, sign) + std::string(static_cast<size_t>(space), '0') + text.substr(sign));
}

template <bool kLast>
Value partition(Runtime& rt, const Value& self, const Arguments& a) {
  const std::string& separator = a.text(0);
  if (separator.empty()) rt.fail("empty separator");
  const std::string& text = text_of(rt, self);
  const size_t at = kLast ? text.rfind(separator) : text.find(separator);
  if (at == std::string::npos) {
    const Value none = made(rt, self, "");
    return kLast ? rt.tuple({none, none, self}) : rt.tuple({self, none, none});
  }
  return rt.tuple({made(rt, self, text.substr(0, at)), made(rt, self, separator),
                   made(rt, self, text.substr(at + separator.size()))});
}

template <bool kStart>
Value without(Runtime& rt, const Value& self, const Arguments& a) {
  const std::string &text = text_of(rt, self), &part = a.text(0);
  if (part.empty() || !(kStart ? text.starts_with(part) : text.ends_with(part))) return self;
  return made(rt, self, kStart ? text.substr(part.size()) : text.substr(0, text.size() - part.size()));
}

Value expand_tabs(Runtime& rt, const Value& self, const Arguments& a) {
  const int64_t width = a.integer(0, 8);
  if (width > 1000) rt.fail("expandtabs() takes at most 1000, not {}", width);
  std::string out;
  int64_t column = 0;
  for (const char c : text_of(rt, self)) {
    if (c == '\t') {
      const int64_t blanks = width > 0 ? width - column % width : 0;
      out.append(static_cast<size_t>(blanks), ' ');
      column += blanks;
    } else {
      out += c;
      column = c == '\n' || c == '\r' ? 0 : column + ((static_cast<uint8_t>(c) & 0xc0) != 0x80);
    }
    rt.check_text(out.size());
  }
  return made(rt, self, std::move(out));
}

Value format_text(Runtime& rt, const Value& self, const Arguments& a) {
  return made(rt, self, brace_format(rt, self.as_string(), a.rest()));
}

Value format_map(Runtime& rt, const Value& self, const Arguments& a) {
  if (!a.at(0).is(Kind::kDict)) rt.fail("format_map() needs a mapping, not {}", type_name(a.at(0)));
  CallArguments given;
  for (const auto& [key, value] : a.at(0).as<DictData>().entries)
    if (key.is_string()) given.named.emplace_back(key.as_string(), value);
  return made(rt, self, brace_format(rt, self.as_string(), given));
}

#define UPG_JINJA_TEXT_IS(what)                                              \
  {                                                                          \
    "is" what, "", 0, [](Runtime& rt, const Value& self, const Arguments&) { \
      return Value::boolean(text_is(what, text_of(rt, self)));               \
    }                                                                        \
  }

constexpr Method kMethods[] = {
    {"capitalize", "", 0, changed<capitalize>},
    {"casefold", "", 0, changed<lower>},
    {"center", "width fillchar", 1, padded<0>},
    {"count", "sub start end", 1, count},
    {"endswith", "suffix start end", 1, begins_or_ends<false>},
    {"expandtabs", "tabsize", 0, expand_tabs},
    {"find", "sub start end", 1, find<false, false>},
    {"format", "*", 0, format_text},
    {"format_map", "mapping", 1, format_map},
    {"index", "sub start end", 1, find<false, true>},
    UPG_JINJA_TEXT_IS("alnum"),
    UPG_JINJA_TEXT_IS("alpha"),
    UPG_JINJA_TEXT_IS("ascii"),
    UPG_JINJA_TEXT_IS("decimal"),
    UPG_JINJA_TEXT_IS("digit"),
    UPG_JINJA_TEXT_IS("identifier"),
    UPG_JINJA_TEXT_IS("lower"),
    UPG_JINJA_TEXT_IS("numeric"),
    UPG_JINJA_TEXT_IS("printable"),
    UPG_JINJA_TEXT_IS("space"),
    UPG_JINJA_TEXT_IS("title"),
    UPG_JINJA_TEXT_IS("upper"),
    {"join", "iterable", 1, join_items},
    {"ljust", "width fillchar", 1, padded<-1>},
    {"lower", "", 0, changed<lower>},
    {"lstrip", "chars", 0, stripped<Sides::kLeft>},
    {"partition", "sep", 1, partition<false>},
    {"removeprefix", "prefix", 1, without<true>},
    {"removesuffix", "suffix", 1, without<false>},
    {"replace", "old new count", 2, replace},
    {"rfind", "sub start end", 1, find<true, false>},
    {"rindex", "sub start end", 1, find<true, true>},
    {"rjust", "width fillchar", 1, padded<1>},
    {"rpartition", "sep", 1, partition<true>},
    {"rsplit", "sep maxsplit", 0, split_text<true>},
    {"rstrip", "chars", 0, stripped<Sides::kRight>},
    {"split", "sep maxsplit", 0, split_text<false>},
    {"splitlines", "keepends", 0, split_into_lines},
    {"startswith", "prefix start end", 1, begins_or_ends<true>},
    {"strip", "chars", 0, stripped<Sides::kBoth>},
    {"swapcase", "", 0, changed<swap_case>},
    {"title", "", 0, changed<title>},
    {"upper", "", 0, changed<upper>},
    {"zfill", "width", 1, zfill},
};

}  // namespace

const std::span<const Method> kTextMethods{kMethods};

}  // namespace upg::jinja
