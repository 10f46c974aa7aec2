// "%s" % x and "{}".format(x), with Python's fields.
#include <algorithm>
#include <cmath>

#include "text/jinja/builtins.h"
#include "text/jinja/text_ops.h"
#include "text/unicode.h"

namespace upg::jinja {
namespace {

constexpr int64_t kMaxWidth = 100'000;
constexpr int64_t kMaxPrecision = 1000;

/// What stands between "%" or ":" and the type.
struct Field {
  std::string fill = " ";
  char align = '\0';  // '<', '>', '^', '='
  char sign = '-';    // '-', '+', ' '
  bool alternate = false;
  char group = '\0';  // ',' or '_'
  int64_t width = 0;
  int64_t precision = -1;
  char type = '\0';
};

std::string padded(const Field& field, char otherwise, std::string sign, std::string body) {
  const int64_t space = field.width - count_code_points(sign) - count_code_points(body);
  if (space <= 0) return sign + body;
  const char align = field.align == '\0' ? otherwise : field.align;
  std::string left, right;
  const int64_t before = align == '<' ? 0 : align == '^' ? space / 2 : space;
  for (int64_t i = 0; i < before; ++i) left += field.fill;
  for (int64_t i = before; i < space; ++i) right += field.fill;
  return align == '=' ? sign + left + body : left + sign + body + right;
}

// Digits with `mark` after every `every` from the right.
std::string grouped(const std::string& digits, char mark, size_t every) {
  if (mark == '\0') return digits;
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % every == 0) out += mark;
    out += digits[i];
  }
  return out;
}

std::string sign_of(const Field& field, bool negative) {
  if (negative) return "-";
  return field.sign == '-' ? "" : std::string(1, field.sign);
}

std::string format_int(const Field& field, int64_t value) {
  const uint64_t size = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  std::string digits, prefix;
  size_t every = 4;
  if (field.type == 'x' || field.type == 'X') {
    digits = field.type == 'x' ? fmt::format("{:x}", size) : fmt::format("{:X}", size);
    prefix = std::string("0") + field.type;
  } else if (field.type == 'o') {
    digits = fmt::format("{:o}", size);
    prefix = "0o";
  } else if (field.type == 'b') {
    digits = fmt::format("{:b}", size);
    prefix = "0b";
  } else {
    digits = std::to_string(size);
    every = 3;
  }
  if (field.precision > static_cast<int64_t>(digits.size()))
    digits.insert(0, static_cast<size_t>(field.precision) - digits.size(), '0');
  std::string sign = sign_of(field, value < 0) + (field.alternate ? prefix : "");
  // Zeros that fill a field are grouped too.
  if (field.group != '\0' && field.fill == "0" && field.align == '=') {
    std::string all = grouped(digits, field.group, every);
    while (static_cast<int64_t>(sign.size() + all.size()) < field.width) {
      digits.insert(0, 1, '0');
      all = grouped(digits, field.group, every);
    }
    return sign + all;
  }
  return padded(field, '>', std::move(sign), grouped(digits, field.group, every));
}

std::string plain_float(const Field& field, double value, char type, int64_t precision) {
  const int places = static_cast<int>(precision);
  std::string text;
  switch (type | 0x20) {
    case 'e':
      text = field.alternate ? fmt::format("{:#.{}e}", value, places) : fmt::format("{:.{}e}", value, places);
      break;
    case 'f':
    case '%':
      text = field.alternate ? fmt::format("{:#.{}f}", value, places) : fmt::format("{:.{}f}", value, places);
      break;
    default:
      text = field.alternate ? fmt::format("{:#.{}g}", value, std::max(places, 1))
                             : fmt::format("{:.{}g}", value, std::max(places, 1));
  }
  return text;
}

std::string format_float(const Field& field, double value) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  double size = std::fabs(value);
  std::string body;
  const char low = static_cast<char>(field.type | 0x20);
  if (field.type == '%') size *= 100;
  if (!std::isfinite(size)) {
    body = std::isnan(size) ? "nan" : "inf";
  } else if (field.type == '\0' && field.precision < 0) {
    body = float_text(size);
  } else if (field.type == '\0') {
    // Like 'g', but with a point and a digit after it where 'g' would leave none.
    body = plain_float(field, size, 'g', field.precision);
    const int exponent = size == 0 ? 0 : static_cast<int>(std::floor(std::log10(size)));
    if (body.find_first_of(".e") == std::string::npos) {
      if (exponent >= std::max<int64_t>(field.precision, 1) - 1 && size != 0)
        body = plain_float(field, size, 'e', std::max<int64_t>(field.precision, 1) - 1);
      else
        body += ".0";
    }
  } else {
    body = plain_float(field, size, low, field.precision < 0 ? 6 : field.precision);
  }
  if (field.type == 'E' || field.type == 'G' || field.type == 'F') body = upper(body);
  if (field.type == '%') body += '%';
  if (field.group != '\0' && std::isfinite(size)) {
    const size_t whole = std::min(body.find_first_of(".eE%"), body.size());
    body = grouped(body.substr(0, whole), field.group, 3) + body.substr(whole);
  }
  return padded(field, '>', sign_of(field, negative), std::move(body));
}

std::string format_text(const Field& field, std::string_view text) {
  if (field.precision >= 0) text = text.substr(0, byte_offset(text, field.precision));
  return padded(field, '<', "", std::string(text));
}

// --- "%s" % x

class PercentFormatter {
 public:
  PercentFormatter(Runtime& rt, const std::string& format, const Value& arguments)
      : rt_(rt), format_(format), arguments_(arguments) {}

  std::string run() {
    while (at_ < format_.size()) {
      rt_.step();
      const size_t percent = std::min(format_.find('%', at_), format_.size());
      out_.append(format_, at_, percent - at_);
      at_ = percent + 1;
      if (percent < format_.size()) field();
      rt_.check_text(out_.size());
    }
    const bool all_used = used_ == (arguments_.is(Kind::kTuple) ? arguments_.items().size() : 1);
    // What has keys may have more than the format asks for.
    const bool keyed = arguments_.is(Kind::kDict) || arguments_.is(Kind::kList) || arguments_.is(Kind::kRange) ||
                       arguments_.is_undefined();
    if (!by_name_ && !all_used && !keyed) rt_.fail("not all arguments converted during string formatting");
    return std::move(out_);
  }

 private:
  char peek() const {
    if (at_ >= format_.size()) rt_.fail("incomplete format");
    return format_[at_];
  }

  Value next_argument() {
    if (named_) {
      Value value = *named_;
      named_.reset();
      return value;
    }
    if (!arguments_.is(Kind::kTuple)) {
      if (used_++ > 0) rt_.fail("not enough arguments for format string");
      return arguments_;
    }
    if (used_ >= arguments_.items().size()) rt_.fail("not enough arguments for format string");
    return arguments_.items()[used_++];
  }

  int64_t number(int64_t most) {
    if (peek() == '*') {
      ++at_;
      const int64_t given = to_index(rt_, next_argument());
      if (given > most || given < -most) rt_.fail("a format's width or precision is {}; {} is the most", given, most);
      return given;
    }
    int64_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + (format_[at_++] - '0');
      if (value > most) rt_.fail("a format's width or precision is more than {}", most);
    }
    return value;
  }

  void field() {
    if (peek() == '(') {
      const size_t close = format_.find(')', at_);
      if (close == std::string::npos) rt_.fail("incomplete format key");
      if (!arguments_.is(Kind::kDict)) rt_.fail("format requires a mapping");
      const Value* found = arguments_.as<DictData>().find(format_.substr(at_ + 1, close - at_ - 1));
      if (found == nullptr) rt_.fail("the format's key '{}' is not there", format_.substr(at_ + 1, close - at_ - 1));
      named_ = *found;
      by_name_ = true;
      at_ = close + 1;
    }
    Field field;
    bool left = false, zero = false;
    for (; std::string_view("-+ #0").find(peek()) != std::string_view::npos; ++at_) {
      left |= peek() == '-';
      zero |= peek() == '0';
      field.alternate |= peek() == '#';
      if (peek() == '+' || (peek() == ' ' && field.sign != '+')) field.sign = peek();
    }
    field.width = number(kMaxWidth);
    if (field.width < 0) {
      left = true;
      field.width = -field.width;
    }
    if (peek() == '.') {
      ++at_;
      field.precision = std::max<int64_t>(number(kMaxPrecision), 0);
    }
    while (peek() == 'l' || peek() == 'h' || peek() == 'L') ++at_;
    field.type = peek();
    ++at_;
    if (field.type == '%') {
      out_ += '%';
      return;
    }
    field.align = left ? '<' : '>';
    convert(field, zero && !left);
  }

  void convert(Field& field, bool zero) {
    static constexpr std::string_view kTypes =
        "srac"
        "diu"
        "xXo"
        "eEfFgG";
    const size_t kind = kTypes.find(field.type);
    if (kind == std::string_view::npos) rt_.fail("unsupported format character '{}'", field.type);
    const Value value = next_argument();
    if (kind < 4) {
      out_ += format_text(field, field.type == 's'   ? to_text(rt_, value)
                                 : field.type == 'c' ? character(value)
                                                     : repr(rt_, value));
      return;
    }
    if (value.is_undefined()) rt_.fail_undefined(value);
    if (!value.is_number()) rt_.fail("%{} format: a real number is required, not {}", field.type, type_name(value));
    if (zero) {
      field.fill = "0";
      field.align = '=';
    }
    if (kind >= 10) {
      if (field.precision < 0) field.precision = 6;
      out_ += format_float(field, value.as_double());
      return;
    }
    if (kind >= 7 && value.is(Kind::kFloat)) rt_.fail("%{} format: an integer is required, not float", field.type);
    if (kind < 7) field.type = 'd';
    const auto whole = python_int(rt_, value, 10);
    if (!whole) rt_.fail("cannot convert float infinity or NaN to integer");
    out_ += format_int(field, *whole);
  }

  std::string character(const Value& value) {
    if (value.is_string() && count_code_points(value.as_string()) == 1) return value.as_string();
    if (!value.is_integral()) rt_.fail("%c requires int or char");
    const int64_t code = value.as_int();
    if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) rt_.fail("%c arg not in range(0x110000)");
    std::string out;
    append_utf8(out, static_cast<uint32_t>(code));
    return out;
  }

  Runtime& rt_;
  const std::string& format_;
  const Value& arguments_;
  std::string out_;
  size_t at_ = 0;
  size_t used_ = 0;
  bool by_name_ = false;
  std::optional<Value> named_;
};

// --- "{}".format(x)

class BraceFormatter {
 public:
  BraceFormatter(Runtime& rt, CallArguments& arguments) : rt_(rt), arguments_(arguments) {}

  std::string run(std::string_view format, int nesting) {
    if (nesting > 1) rt_.fail("Max string recursion exceeded");
    std::string out;
    for (size_t at = 0; at < format.size();) {
      rt_.step();
      const char c = format[at];
      if (c != '{' && c != '}') {
        out += c;
        ++at;
      } else if (at + 1 < format.size() && format[at + 1] == c) {
        out += c;
        at += 2;
      } else if (c == '}') {
        rt_.fail("Single '}}' encountered in format string");
      } else {
        const size_t end = closing(format, at + 1);
        out += field(format.substr(at + 1, end - at - 1), nesting);
        at = end + 1;
      }
      rt_.check_text(out.size());
    }
    return out;
  }

 private:
  size_t closing(std::string_view format, size_t at) const {
    for (int open = 1; at < format.size(); ++at) {
      if (format[at] == '{') ++open;
      if (format[at] == '}' && --open == 0) return at;
    }
    rt_.fail("expected '}}' before end of string");
  }

  std::string field(std::string_view text, int nesting) {
    size_t end = 0;  // of the name: brackets may hold ':' and '!'
    for (bool inside = false; end < text.size(); ++end) {
      if (text[end] == '[') inside = true;
      if (text[end] == ']') inside = false;
      if (!inside && (text[end] == ':' || text[end] == '!')) break;
    }
    Value value = look_up(text.substr(0, end));
    text.remove_prefix(end);
    if (text.starts_with('!')) {
      const char conversion = text.size() > 1 ? text[1] : '\0';
      if (conversion == 's')
        value = rt_.text(to_text(rt_, value));
      else if (conversion == 'r' || conversion == 'a')
        value = rt_.text(repr(rt_, value));
      else
        rt_.fail("unknown conversion specifier in a format");
      text.remove_prefix(2);
      if (!text.empty() && text[0] != ':') rt_.fail("expected ':' after conversion specifier");
    }
    if (text.starts_with(':')) text.remove_prefix(1);
    return converted(value, run(text, nesting + 1));
  }

  Value look_up(std::string_view name) {
    const size_t first = std::min(name.find_first_of(".["), name.size());
    Value value = argument(name.substr(0, first));
    name.remove_prefix(first);
    while (!name.empty()) {
      if (name[0] == '.') {
        const size_t end = std::min(name.find_first_of(".[", 1), name.size());
        value = rt_.attribute(value, name.substr(1, end - 1));
        name.remove_prefix(end);
        continue;
      }
      const size_t end = name.find(']');
      if (name[0] != '[' || end == std::string_view::npos) rt_.fail("a field of a format is wrong");
      const std::string_view key = name.substr(1, end - 1);
      bool too_large = false;
      const auto number = text_is("digit", key) ? parse_integer(key, 10, too_large) : std::nullopt;
      value = rt_.item(value, number ? Value::integer(*number) : rt_.text(std::string(key)));
      name.remove_prefix(end + 1);
    }
    return value;
  }

  Value argument(std::string_view name) {
    bool too_large = false;
    std::optional<int64_t> index;
    if (name.empty()) {
      if (numbered_) rt_.fail("cannot switch from manual field specification to automatic field numbering");
      index = automatic_++;
    } else if (text_is("digit", name)) {
      if (automatic_ > 0) rt_.fail("cannot switch from automatic field numbering to manual field specification");
      numbered_ = true;
      index = parse_integer(name, 10, too_large);
      if (!index) rt_.fail("a field of a format has too large a number");
    }
    if (index) {
      if (static_cast<uint64_t>(*index) >= arguments_.positional.size())
        rt_.fail("Replacement index {} out of range for positional args tuple", *index);
      return arguments_.positional[static_cast<size_t>(*index)];
    }
    const Value* found = arguments_.find(name);
    if (found == nullptr) rt_.fail("the format's field '{}' is not there", name);
    return *found;
  }

  Field parse_spec(std::string_view spec) const {
    Field field;
    size_t at = 0;
    const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
    if (!spec.empty()) {
      const size_t first = code_point_at(spec, 0).bytes;
      if (first < spec.size() && is_align(spec[first])) {
        field.fill = std::string(spec.substr(0, first));
        field.align = spec[first];
        at = first + 1;
      } else if (is_align(spec[0])) {
        field.align = spec[0];
        at = 1;
      }
    }
    const auto current = [&] { return at < spec.size() ? spec[at] : '\0'; };
    const auto number = [&](int64_t most) {
      int64_t value = 0;
      for (; current() >= '0' && current() <= '9'; ++at) {
        value = value * 10 + (current() - '0');
        if (value > most) rt_.fail("a format's width or precision is more than {}", most);
      }
      return value;
    };
    if (current() == '+' || current() == '-' || current() == ' ') field.sign = spec[at++];
    if (current() == '#') {
      field.alternate = true;
      ++at;
    }
    if (current() == '0') {
      ++at;
      if (field.align == '\0') {
        field.fill = "0";
        field.align = '=';
      }
    }
    field.width = number(kMaxWidth);
    if (current() == ',' || current() == '_') field.group = spec[at++];
    if (current() == '.') {
      ++at;
      if (current() < '0' || current() > '9') rt_.fail("Format specifier missing precision");
      field.precision = number(kMaxPrecision);
    }
    if (at < spec.size()) field.type = spec[at++];
    if (at < spec.size()) rt_.fail("Invalid format specifier '{}'", spec);
    return field;
  }

  std::string converted(const Value& value, const std::string& spec) const {
    const bool number = value.is_number();
    if (spec.empty()) return to_text(rt_, value);
    Field field = parse_spec(spec);
    const auto wrong = [&]() {
      rt_.fail("Unknown format code '{}' for object of type '{}'", field.type, type_name(value));
    };
    if (value.is_string() || (value.is(Kind::kBool) && field.type == '\0')) {
      if (field.type != '\0' && field.type != 's') wrong();
      if (value.is_string() && field.align == '=' && spec.find('=') == std::string::npos) field.align = '<';
      if (field.align == '=') rt_.fail("'=' alignment not allowed in string format specifier");
      if (value.is_string()) return format_text(field, value.as_string());
      return format_int(field, value.as_int());
    }
    if (!number) rt_.fail("unsupported format string passed to {}.__format__", type_name(value));
    static constexpr std::string_view kIntTypes = "bcdoxXn", kFloatTypes = "eEfFgGn%";
    if (value.is_integral() && (field.type == '\0' || kIntTypes.find(field.type) != std::string_view::npos)) {
      if (field.precision >= 0) rt_.fail("Precision not allowed in integer format specifier");
      if (field.type == 'c') rt_.fail("the format 'c' is not supported");
      return format_int(field, value.as_int());
    }
    if (field.type != '\0' && kFloatTypes.find(field.type) == std::string_view::npos) wrong();
    if (field.type == 'n') field.type = 'g';
    return format_float(field, value.as_double());
  }

  Runtime& rt_;
  CallArguments& arguments_;
  int64_t automatic_ = 0;
  bool numbered_ = false;
};

}  // namespace

std::string percent_format(Runtime& rt, const std::string& format, const Value& arguments) {
  return PercentFormatter(rt, format, arguments).run();
}

std::string brace_format(Runtime& rt, const std::string& format, CallArguments& arguments) {
  return BraceFormatter(rt, arguments).run(format, 0);
}

}  // namespace upg::jinja
