// Values as text: str(), repr() and JSON, as Python writes them.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja/runtime.h"
#include "text/jinja/text_ops.h"
#include "text/jinja/value.h"
#include "text/unicode.h"

namespace upg::jinja {
namespace {

void append_repr(Runtime& rt, std::string& out, const Value& value);

void append_items(Runtime& rt, std::string& out, const std::vector<Value>& items) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    append_repr(rt, out, items[i]);
  }
}

void append_dict(Runtime& rt, std::string& out, const DictData& dict) {
  out += '{';
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (i > 0) out += ", ";
    append_repr(rt, out, dict.entries[i].first);
    out += ": ";
    append_repr(rt, out, dict.entries[i].second);
  }
  out += '}';
}

void append_view(Runtime& rt, std::string& out, const Value& view) {
  out += fmt::format("{}([", type_name(view));
  const auto cursor = iterate(rt, view);
  bool first = true;
  for (Value each; cursor->next(rt, each); first = false) {
    if (!first) out += ", ";
    append_repr(rt, out, each);
  }
  out += "])";
}

void append_repr(Runtime& rt, std::string& out, const Value& value) {
  const Runtime::Level level(rt);
  rt.step();
  rt.check_text(out.size());
  switch (value.kind()) {
    case Kind::kUndefined:
      out += "Undefined";
      break;
    case Kind::kNone:
      out += "None";
      break;
    case Kind::kBool:
      out += value.as_bool() ? "True" : "False";
      break;
    case Kind::kInt:
      out += std::to_string(value.as_int());
      break;
    case Kind::kFloat:
      out += float_text(value.as_double());
      break;
    case Kind::kString:
      rt.step(value.as_string().size() / 16);
      if (value.is_markup()) out += "Markup(";
      append_text_repr(out, value.as_string());
      if (value.is_markup()) out += ')';
      break;
    case Kind::kList:
      out += '[';
      append_items(rt, out, value.items());
      out += ']';
      break;
    case Kind::kTuple:
      out += '(';
      append_items(rt, out, value.items());
      out += value.items().size() == 1 ? ",)" : ")";
      break;
    case Kind::kDict:
      append_dict(rt, out, value.as<DictData>());
      break;
    case Kind::kView:
      append_view(rt, out, value);
      break;
    case Kind::kRange: {
      const auto& range = value.as<RangeData>();
      out += range.step == 1 ? fmt::format("range({}, {})", range.start, range.stop)
                             : fmt::format("range({}, {}, {})", range.start, range.stop, range.step);
      break;
    }
    case Kind::kIterator:
      out += "<generator object>";
      break;
    case Kind::kObject:
      out += value.as<ObjectData>().repr(rt);
      break;
  }
}

void append_json_text(std::string& out, std::string_view text, bool ensure_ascii) {
  out += '"';
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    const auto unit = [&](uint32_t value) { out += fmt::format("\\u{:04x}", value); };
    static constexpr std::string_view kEscaped = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
    const size_t known = c.value < 0x80 ? kEscaped.find(static_cast<char>(c.value)) : std::string_view::npos;
    if (known != std::string_view::npos) {
      out += '\\';
      out += kLetters[known];
    } else if (c.value < 0x20 || (ensure_ascii && c.value == 0x7f)) {
      unit(c.value);
    } else if (!ensure_ascii || c.value < 0x80) {
      out.append(text, at, c.bytes);
    } else if (c.value < 0x10000) {
      unit(c.value);
    } else {
      unit(0xd800 + ((c.value - 0x10000) >> 10));
      unit(0xdc00 + ((c.value - 0x10000) & 0x3ff));
    }
    at += c.bytes;
  }
  out += '"';
}

std::string json_float(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return float_text(value);
}

class JsonWriter {
 public:
  JsonWriter(Runtime& rt, const JsonStyle& style) : rt_(rt), style_(style) {}

  void write(const Value& value, size_t level) {
    const Runtime::Level deeper(rt_);
    rt_.step();
    rt_.check_text(out.size());
    if (value.is_string()) {
      rt_.step(value.as_string().size() / 16);
      append_json_text(out, value.as_string(), style_.ensure_ascii);
    } else if (value.is_none() || value.is_number()) {
      out += scalar(value);
    } else if (value.is(Kind::kList) || value.is(Kind::kTuple)) {
      write_items(value.items(), level);
    } else if (value.is(Kind::kDict)) {
      write_dict(value.as<DictData>(), level);
    } else {
      rt_.fail("Object of type {} is not JSON serializable", type_name(value));
    }
  }

  std::string out;

 private:
  static std::string scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (value.is(Kind::kBool)) return value.as_bool() ? "true" : "false";
    return value.is(Kind::kInt) ? std::to_string(value.as_int()) : json_float(value.as_double());
  }

  void new_line(size_t level) {
    if (!style_.indent) return;
    rt_.step(level);
    rt_.check_text(out.size() + level * style_.indent->size());
    out += '\n';
    for (size_t i = 0; i < level; ++i) out += *style_.indent;
  }

  void write_items(const std::vector<Value>& items, size_t level) {
    out += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out += style_.item_separator;
      new_line(level + 1);
      write(items[i], level + 1);
    }
    if (!items.empty()) new_line(level);
    out += ']';
  }

  void write_dict(const DictData& dict, size_t level) {
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys)
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto* a, const auto* b) { return ordered(rt_, a->first, b->first, Order::kLess); });
    out += '{';
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out += style_.item_separator;
      new_line(level + 1);
      const Value& key = entries[i]->first;
      if (!key.is_string() && !key.is_none() && !key.is_number())
        rt_.fail("keys must be str, int, float, bool or None, not {}", type_name(key));
      append_json_text(out, key.is_string() ? key.as_string() : scalar(key), style_.ensure_ascii);
      out += style_.key_separator;
      write(entries[i]->second, level + 1);
    }
    if (!entries.empty()) new_line(level);
    out += '}';
  }

  Runtime& rt_;
  const JsonStyle& style_;
};

}  // namespace

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  if (exponent < -4 || exponent >= 16) {
    return fmt::format("{}e{}{:02}", text.substr(0, e), exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  std::string digits;
  for (const char c : text.substr(0, e))
    if (c >= '0' && c <= '9') digits += c;
  const std::string sign = value < 0 || std::signbit(value) ? "-" : "";
  if (exponent < 0) return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

void append_text_repr(std::string& out, std::string_view text) {
  const char quote = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos ? '"' : '\'';
  out += quote;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (c.value == static_cast<uint32_t>(quote) || c.value == '\\') {
      out += '\\';
      out += static_cast<char>(c.value);
    } else if (c.value == '\n') {
      out += "\\n";
    } else if (c.value == '\r') {
      out += "\\r";
    } else if (c.value == '\t') {
      out += "\\t";
    } else if (c.value == ' ' || is_printable(c.value)) {
      out.append(text, at, c.bytes);
    } else if (c.value < 0x100) {
      out += fmt::format("\\x{:02x}", c.value);
    } else {
      out += c.value < 0x10000 ? fmt::format("\\u{:04x}", c.value) : fmt::format("\\U{:08x}", c.value);
    }
    at += c.bytes;
  }
  out += quote;
}

std::string repr(Runtime& rt, const Value& value) {
  std::string out;
  append_repr(rt, out, value);
  return out;
}

std::string to_text(Runtime& rt, const Value& value) {
  if (value.is_string()) return value.as_string();
  if (value.is_undefined()) return {};
  return repr(rt, value);
}

std::string to_json(Runtime& rt, const Value& value, const JsonStyle& style) {
  JsonWriter writer(rt, style);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace upg::jinja
