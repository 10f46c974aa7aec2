#include "text/jinja/lexer.h"

#include <charconv>
#include <cstdlib>

#include "base/error.h"
#include "text/jinja/text_ops.h"
#include "text/unicode.h"

namespace upg::jinja {
namespace {

constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                           "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  Lexer(std::string_view source, std::string_view name) : name_(name) {
    std::string repaired;
    append_repaired_utf8(repaired, source, false);
    source_.reserve(repaired.size());
    for (size_t i = 0; i < repaired.size(); ++i) {
      if (repaired[i] == '\r') {
        source_ += '\n';
        if (i + 1 < repaired.size() && repaired[i + 1] == '\n') ++i;
      } else {
        source_ += repaired[i];
      }
    }
    if (source_.ends_with('\n')) source_.pop_back();
  }

  std::vector<Token> run() {
    while (at_ < source_.size()) text_and_tag();
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  template <typename... Args>
  [[noreturn]] void fail_here(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::kInvalidFile, "{}:{}: {}", name_, line_, fmt::format(format, std::forward<Args>(args)...));
  }

  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, line_, std::move(text)}); }
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool looking_at(std::string_view text) const { return rest().starts_with(text); }

  void advance(size_t bytes) {
    for (size_t end = at_ + bytes; at_ < end; ++at_) line_ += source_[at_] == '\n';
  }

  size_t spaces_at(size_t at) const {
    const size_t begin = at;
    while (at < source_.size()) {
      const CodePoint c = code_point_at(source_, at);
      if (!is_space(c.value)) break;
      at += c.bytes;
    }
    return at - begin;
  }

  // The text up to a tag, without what the tag's sign or lstrip_blocks takes from its end.
  std::string_view stripped(std::string_view text, char sign, bool block) const {
    if (sign == '-') return strip(text, {}, Sides::kRight);
    if (sign == '+' || !block) return text;
    const size_t line_begin = text.rfind('\n') + 1;  // 0 where there is none
    if ((line_begin > 0 || line_starting_) && strip(text.substr(line_begin)).empty()) return text.substr(0, line_begin);
    return text;
  }

  char sign_at(size_t at) const {
    return at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
  }

  // Bytes of an end tag of `close` at `at`, or 0. It swallows white space after "-" and, in blocks, one line end.
  size_t end_tag(size_t at, std::string_view close, bool block) const {
    const std::string_view here = std::string_view(source_).substr(at);
    if (here.starts_with('-') && here.substr(1).starts_with(close))
      return 1 + close.size() + spaces_at(at + 1 + close.size());
    if (block && here.starts_with('+') && here.substr(1).starts_with(close)) return 1 + close.size();
    if (!here.starts_with(close)) return 0;
    return close.size() + (block && here.substr(close.size()).starts_with('\n') ? 1 : 0);
  }

  void finish_tag(size_t bytes) {
    advance(bytes);
    line_starting_ = at_ > 0 && source_[at_ - 1] == '\n';
  }

  void data(std::string_view text) {
    if (!text.empty()) add(TokenKind::kData, std::string(text));
  }

  void text_and_tag() {
    size_t tag = at_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        data(rest());
        advance(source_.size() - at_);
        return;
      }
      const char next = source_[tag + 1];
      if (next == '{' || next == '%' || next == '#') break;
    }
    const char sign = sign_at(tag + 2);
    const char type = source_[tag + 1];
    data(stripped(rest().substr(0, tag - at_), sign, type != '{'));
    advance(tag - at_);
    const size_t opening = sign == '\0' ? 2 : 3;
    if (type == '#') return comment(opening);
    if (type == '{') return tag_body(TokenKind::kVariableBegin, TokenKind::kVariableEnd, opening, "}}", false);
    if (const size_t bytes = raw_begin(opening)) return raw(bytes);
    tag_body(TokenKind::kBlockBegin, TokenKind::kBlockEnd, opening, "%}", true);
  }

  void comment(size_t opening) {
    for (size_t at = source_.find("#}", at_ + opening); at != std::string::npos; at = source_.find("#}", at + 1)) {
      const char before = source_[at - 1];
      const size_t begin = at > at_ + opening && (before == '-' || before == '+') ? at - 1 : at;
      return finish_tag(begin + end_tag(begin, "#}", true) - at_);
    }
    fail_here("a comment begins here and does not end; close it with #}}");
  }

  // {% raw %}: bytes of it, or 0.
  size_t raw_begin(size_t opening) const {
    size_t at = at_ + opening + spaces_at(at_ + opening);
    if (!std::string_view(source_).substr(at).starts_with("raw")) return 0;
    at += 3 + spaces_at(at + 3);
    const std::string_view here = std::string_view(source_).substr(at);
    if (here.starts_with("-%}")) return at + 3 + spaces_at(at + 3) - at_;
    return here.starts_with("%}") ? at + 2 - at_ : 0;
  }

  void raw(size_t opening) {
    finish_tag(opening);
    line_starting_ = source_[at_ - 1] == '\n';
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      const char sign = sign_at(tag + 2);
      size_t at = tag + (sign == '\0' ? 2 : 3);
      at += spaces_at(at);
      if (!std::string_view(source_).substr(at).starts_with("endraw")) continue;
      at += 6 + spaces_at(at + 6);
      const size_t closing = end_tag(at, "%}", true);
      if (closing == 0) continue;
      data(stripped(rest().substr(0, tag - at_), sign, true));
      return finish_tag(at + closing - at_);
    }
    fail_here("a raw block begins here and does not end; close it with {{% endraw %}}");
  }

  void tag_body(TokenKind begin, TokenKind end, size_t opening, std::string_view close, bool block) {
    add(begin, "");
    advance(opening);
    std::string expected;  // closing brackets, the next one last
    while (at_ < source_.size()) {
      if (expected.empty()) {
        if (const size_t bytes = end_tag(at_, close, block)) {
          add(end, "");
          return finish_tag(bytes);
        }
      }
      if (const size_t spaces = spaces_at(at_)) {
        advance(spaces);
        continue;
      }
      if (!number() && !name() && !string()) op(expected);
    }
    // The parser finds that the tag is not closed.
  }

  // digits, perhaps with single _ between.
  size_t digits(size_t at) const {
    const size_t begin = at;
    while (at < source_.size() &&
           (is_digit(source_[at]) || (at > begin && source_[at] == '_' && at + 1 < source_.size() &&
                                      is_digit(source_[at + 1]) && source_[at - 1] != '_')))
      ++at;
    return at - begin;
  }

  bool number() {
    if (!is_digit(source_[at_])) return false;
    const size_t whole = digits(at_);
    size_t end = at_ + whole;
    bool real = false;
    if (at_ == 0 || source_[at_ - 1] != '.') {
      if (end < source_.size() && source_[end] == '.')
        if (const size_t fraction = digits(end + 1)) {
          end += 1 + fraction;
          real = true;
        }
      if (end < source_.size() && (source_[end] | 0x20) == 'e') {
        size_t exponent = end + 1;
        if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) ++exponent;
        if (const size_t bytes = digits(exponent)) {
          end = exponent + bytes;
          real = true;
        }
      }
    }
    if (real) {
      add(TokenKind::kFloat, source_.substr(at_, end - at_));
      tokens_.back().number = parse_float(tokens_.back().text).value_or(0);
      advance(end - at_);
      return true;
    }
    integer(whole);
    return true;
  }

  void integer(size_t decimal_bytes) {
    int64_t base = 10;
    size_t bytes = decimal_bytes;
    if (source_[at_] == '0') {
      bytes = 1;
      while (at_ + bytes < source_.size() &&
             (source_[at_ + bytes] == '0' ||
              (source_[at_ + bytes] == '_' && at_ + bytes + 1 < source_.size() && source_[at_ + bytes + 1] == '0')))
        ++bytes;
      const char letter = at_ + 1 < source_.size() ? static_cast<char>(source_[at_ + 1] | 0x20) : '\0';
      const int64_t prefixed = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
      size_t end = at_ + 2;
      while (prefixed != 0 && end < source_.size()) {
        const size_t digit = source_[end] == '_' ? end + 1 : end;
        const char c = digit < source_.size() ? source_[digit] : '\0';
        const char low = static_cast<char>(c | 0x20);
        const int64_t value = is_digit(c) ? c - '0' : low >= 'a' && low <= 'f' ? low - 'a' + 10 : 99;
        if (value >= prefixed) break;
        end = digit + 1;
      }
      if (prefixed != 0 && end > at_ + 2) {
        base = prefixed;
        bytes = end - at_;
      }
    }
    add(TokenKind::kInteger, source_.substr(at_, bytes));
    bool too_large = false;
    const auto value = parse_integer(tokens_.back().text, base, too_large);
    if (!value) fail_here("the number {} needs more than 64 bits", tokens_.back().text);
    tokens_.back().integer = *value;
    advance(bytes);
  }

  bool name() {
    size_t end = at_;
    while (end < source_.size()) {
      const CodePoint c = code_point_at(source_, end);
      if (!is_word(c.value)) break;
      end += c.bytes;
    }
    if (end == at_) return false;
    add(TokenKind::kName, source_.substr(at_, end - at_));
    advance(end - at_);
    return true;
  }

  bool string() {
    const char quote = source_[at_];
    if (quote != '"' && quote != '\'') return false;
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail_here("a string begins here and does not end");
    add(TokenKind::kString, unescape(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
    advance(end + 1 - at_);
    return true;
  }

  // Hexadecimal digits of an escape of fixed length.
  uint32_t hex(std::string_view text, size_t at, size_t count) const {
    uint32_t value = 0;
    const char* begin = text.data() + at;
    if (at + count > text.size()) fail_here("an escape in a string is cut short: {} digits are needed", count);
    const auto [end, error] = std::from_chars(begin, begin + count, value, 16);
    if (error != std::errc() || end != begin + count)
      fail_here("an escape in a string is wrong: {} hexadecimal digits are needed", count);
    return value;
  }

  std::string unescape(std::string_view text) const {
    static constexpr std::string_view kLetters = "\\'\"abfnrtv", kMeanings = "\\'\"\a\b\f\n\r\t\v";
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\' || i + 1 >= text.size()) {
        out += text[i];
        continue;
      }
      const char c = text[++i];
      const size_t known = kLetters.find(c);
      if (known != std::string_view::npos) {
        out += kMeanings[known];
      } else if (c == '\n') {
        continue;  // a line continued
      } else if (c >= '0' && c <= '7') {
        uint32_t value = 0;
        size_t count = 0;
        for (; count < 3 && i < text.size() && text[i] >= '0' && text[i] <= '7'; ++count, ++i)
          value = value * 8 + static_cast<uint32_t>(text[i] - '0');
        --i;
        append_utf8(out, value);
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        const uint32_t value = hex(text, i + 1, count);
        if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
          fail_here("an escape in a string names U+{:04X}, which is no character", value);
        append_utf8(out, value);
        i += count;
      } else if (c == 'N') {
        fail_here("the escape \\N{{...}} is not supported; write the character");
      } else {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  void op(std::string& expected) {
    for (const std::string_view each : kOperators) {
      if (!looking_at(each)) continue;
      if (each == "{") expected += '}';
      if (each == "(") expected += ')';
      if (each == "[") expected += ']';
      if (each == "}" || each == ")" || each == "]") {
        if (expected.empty()) fail_here("unexpected '{}'", each);
        if (expected.back() != each[0]) fail_here("unexpected '{}', expected '{}'", each, expected.back());
        expected.pop_back();
      }
      add(TokenKind::kOperator, std::string(each));
      return advance(each.size());
    }
    const CodePoint c = code_point_at(source_, at_);
    fail_here("unexpected character '{}'", source_.substr(at_, c.bytes));
  }

  std::string name_;
  std::string source_;
  size_t at_ = 0;
  uint32_t line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, std::string_view name) { return Lexer(source, name).run(); }

std::string describe(const Token& token) {
  static constexpr std::string_view kDescriptions[] = {"text",
                                                       "begin of print statement",
                                                       "end of print statement",
                                                       "begin of statement block",
                                                       "end of statement block",
                                                       "",
                                                       "string",
                                                       "integer",
                                                       "float",
                                                       "",
                                                       "end of template"};
  if (token.kind == TokenKind::kName || token.kind == TokenKind::kOperator) return token.text;
  return std::string(kDescriptions[static_cast<size_t>(token.kind)]);
}

}  // namespace upg::jinja
