// Rewrites an Oniguruma pattern (Ruby syntax, Unicode 16 in tokenizers 0.23) for PCRE2 10.42 (Unicode 14).
//
// Found by comparing both over all code points: PCRE2's UCP \s has U+180E, Oniguruma's has not; \w is L N _ in PCRE2
// and Alphabetic M Nd Pc in Oniguruma, to which it adds Latin-1's No except in a class; \h is a hexadecimal digit and
// \v a vertical tab there; \p{Script} means the script there, the script extensions in PCRE2; the categories differ by
// what Unicode 15 to 16 assigned (unicode_tables.cc), nothing else. (?i) agrees for single characters; of the foldings
// to several characters (ss for U+00DF) PCRE2 does none.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "text/pretokenizer_regex.h"
#include "text/unicode.h"

namespace upg {
namespace {

constexpr std::string_view kSpaceClass =
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : pattern_(pattern), where_(where) {}

  std::string run() {
    while (!done()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape_outside();
      } else if (c == '[') {
        bracket_class();
      } else if (c == '(') {
        group();
      } else if (c == '{') {
        interval();
      } else {
        out_ += c;
        ++at_;
      }
    }
    return std::move(out_);
  }

 private:
  // What may stand in a class, and the negated sets in it that can only be said outside of it.
  struct ClassItem {
    std::string members;
    bool negated = false;
    bool is_set = false;  // rather than one character
  };

  bool done() const { return at_ >= pattern_.size(); }
  bool next_is(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }

  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorCode::kUnsupported, "{}: {} at byte {} of the regular expression is not supported", where_, what, at_);
  }
  [[noreturn]] void broken(std::string_view what) const {
    fail(ErrorCode::kInvalidFile, "{}: {} at byte {} of the regular expression", where_, what, at_);
  }

  // Members of a class for every listed category or script whose name starts with `name`.
  std::string property(std::string_view name) const {
    std::string members;
    for (const LateCodePoints& late : kLateCodePoints) {
      const bool script = late.name.size() > 2;
      if (script ? late.name != name : !late.name.starts_with(name)) continue;
      if (members.empty()) members = fmt::format("\\p{{{}{}}}", script ? "sc:" : "", name);
      for (const CodePointRange& range : late.ranges)
        members += range.first == range.last ? fmt::format("\\x{{{:x}}}", range.first)
                                             : fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", range.first, range.last);
    }
    if (members.empty()) refuse(fmt::format("\\p{{{}}}", name));
    return members;
  }

  std::string word() const {
    return "\\p{Alphabetic}" + property("L") + property("M") + property("Nd") + property("Pc");
  }

  // At the 'p' or 'P'.
  ClassItem property_escape() {
    bool negated = pattern_[at_++] == 'P';
    if (done() || pattern_[at_] != '{') broken("\\p without {name}");
    const size_t close = pattern_.find('}', at_);
    if (close == std::string_view::npos) broken("\\p{ without }");
    std::string_view name = pattern_.substr(at_ + 1, close - at_ - 1);
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    if (name.empty() || !std::all_of(name.begin(), name.end(), is_letter)) refuse("this \\p{...}");
    ClassItem item{property(name), negated, true};
    at_ = close + 1;
    return item;
  }

  uint32_t hex(size_t most) {
    uint32_t value = 0;
    size_t digits = 0;
    for (; !done() && digits < most; ++digits, ++at_) {
      const char c = pattern_[at_];
      if (is_digit(c)) {
        value = value * 16 + static_cast<uint32_t>(c - '0');
      } else if (is_letter(c) && (c | 0x20) <= 'f') {
        value = value * 16 + static_cast<uint32_t>((c | 0x20) - 'a') + 10;
      } else {
        break;
      }
    }
    if (digits == 0) broken("an escape without hexadecimal digits");
    if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) broken("an escape outside Unicode");
    return value;
  }

  // After a backslash: a set of code points, as members of a class.
  ClassItem set_escape() {
    if (done()) broken("a backslash at the end");
    const char c = pattern_[at_];
    if (c == 'p' || c == 'P') return property_escape();
    ++at_;
    switch (c) {
      case 's':
        return {std::string(kSpaceClass), false, true};
      case 'S':
        return {std::string(kSpaceClass), true, true};
      case 'd':
        return {property("Nd"), false, true};
      case 'D':
        return {property("Nd"), true, true};
      case 'w':
        return {word(), false, true};
      case 'W':
        return {word(), true, true};
      case 'h':
        return {"0-9A-Fa-f", false, true};
      case 'H':
        return {"0-9A-Fa-f", true, true};
      case 'v':
        return {"\\x{b}", false};
      case 't':
      case 'n':
      case 'r':
      case 'f':
      case 'a':
      case 'e':
        return {std::string{'\\', c}, false};
      case 'u':
        return {fmt::format("\\x{{{:x}}}", hex(4)), false};
      case 'x': {
        if (!next_is("{")) return {fmt::format("\\x{{{:x}}}", ascii(hex(2))), false};
        ++at_;
        const uint32_t value = hex(8);
        if (!next_is("}")) broken("\\x{ without }");
        ++at_;
        return {fmt::format("\\x{{{:x}}}", value), false};
      }
      default:
        break;
    }
    if (is_letter(c) || is_digit(c)) {
      --at_;
      refuse(fmt::format("\\{}", c));
    }
    if (static_cast<uint8_t>(c) >= 0x80) {  // PCRE2 takes a backslash before such a character for itself too
      --at_;
      return {take_character(), false};
    }
    return {std::string{'\\', c}, false};
  }

  // \x80 and above is a byte of an encoded character in Oniguruma.
  uint32_t ascii(uint32_t value) const {
    if (value >= 0x80) refuse("\\x with a byte of 80 or above");
    return value;
  }

  std::string take_character() {
    const uint32_t bytes = code_point_at(pattern_, at_).bytes;
    const std::string_view character = pattern_.substr(at_, bytes);
    at_ += bytes;
    return std::string(character);
  }

  void escape_outside() {
    ++at_;
    const bool word = next_is("w") || next_is("W");
    ClassItem item = set_escape();
    if (word) item.members += "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";
    out_ += fmt::format("[{}{}]", item.negated ? "^" : "", item.members);
  }

  void bracket_class() {
    ++at_;
    const bool negated = next_is("^");
    if (negated) ++at_;
    if (next_is("]")) refuse("an empty class, or ] first in a class,");
    std::string members;
    std::vector<std::string> complements;
    while (!next_is("]")) {
      if (done()) broken("a class without ]");
      if (next_is("[")) refuse("a class in a class (write \\[ for the character)");
      if (next_is("&&")) refuse("the intersection of classes");
      if (pattern_[at_] == '\\') {
        ++at_;
        ClassItem item = set_escape();
        if (item.negated) {
          complements.push_back(std::move(item.members));
          continue;
        }
        if (item.is_set && members.size() > 1 && members.back() == '-' && members[members.size() - 2] != '\\')
          refuse("a range that ends in a set");
        members += item.members;
        if (item.is_set && next_is("-") && !next_is("-]")) {  // not a range from the set's last member
          members += "\\-";
          ++at_;
        }
      } else if (next_is("^")) {  // may come to stand first
        members += "\\^";
        ++at_;
      } else {
        members += take_character();
      }
    }
    ++at_;
    if (complements.empty()) {
      out_ += fmt::format("[{}{}]", negated ? "^" : "", members);
      return;
    }
    if (!negated) {  // in the members, or outside one of the sets
      out_ += "(?:";
      if (!members.empty()) out_ += fmt::format("[{}]|", members);
      for (size_t i = 0; i < complements.size(); ++i) out_ += fmt::format("{}[^{}]", i == 0 ? "" : "|", complements[i]);
    } else {  // in all the sets, and not among the members
      out_ += "(?:";
      if (!members.empty()) out_ += fmt::format("(?![{}])", members);
      for (size_t i = 0; i + 1 < complements.size(); ++i) out_ += fmt::format("(?=[{}])", complements[i]);
      out_ += fmt::format("[{}]", complements.back());
    }
    out_ += ')';
  }

  void group() {
    constexpr std::string_view kOpenings[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:", "(?i)"};
    for (std::string_view opening : kOpenings) {
      if (!next_is(opening)) continue;
      if (opening == "(?i)" && at_ != 0) break;  // elsewhere it takes the following alternatives in too
      out_ += opening;
      at_ += opening.size();
      return;
    }
    if (next_is("(?")) refuse(fmt::format("the group {}", pattern_.substr(at_, 4)));
    if (next_is("(*")) broken("a repeat of nothing");
    out_ += "(?:";  // nothing refers back to a capture
    ++at_;
  }

  void interval() {
    const size_t close = pattern_.find('}', at_);
    if (close == std::string_view::npos) refuse("{ without } (write \\{ for the character)");
    const std::string_view inside = pattern_.substr(at_ + 1, close - at_ - 1);
    const bool numeric = !inside.empty() && is_digit(inside.front()) &&
                         std::all_of(inside.begin(), inside.end(), [](char c) { return is_digit(c) || c == ','; }) &&
                         std::count(inside.begin(), inside.end(), ',') <= 1;
    if (!numeric) refuse("this {...}");
    out_ += pattern_.substr(at_, close + 1 - at_);
    at_ = close + 1;
    if (next_is("?") && inside.find(',') == std::string_view::npos) refuse("{n}? (optional in Ruby, lazy in Perl)");
    if (next_is("+")) refuse("{...}+ (not possessive in Ruby, possessive in Perl)");
  }

  std::string_view pattern_;
  std::string_view where_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

std::string translate_regex(std::string_view pattern, std::string_view where) {
  return Translator(pattern, where).run();
}

}  // namespace upg
