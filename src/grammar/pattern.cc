#include "grammar/pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"

namespace upg::grammar {
namespace {

bool can_stand(int c) { return c >= 0x20 && c <= 0x7e && c != '"' && c != '\\'; }

std::string escaped(int c) { return fmt::format("\\x{:02x}", c); }

struct Node {
  std::map<int, Node> next;
  bool name_ends = false;

  // All texts that go on from here but the names; characters that no branch takes lead out of the tree.
  std::string pattern() const {
    std::string others;
    for (int c = 0x20; c <= 0x7e; ++c) {
      if (!can_stand(c) || next.contains(c)) continue;
      int last = c;
      while (can_stand(last + 1) && !next.contains(last + 1)) ++last;
      others += last == c ? escaped(c) : escaped(c) + "-" + escaped(last);
      c = last;
    }
    std::string all;
    if (!others.empty()) all = "[" + others + "][ -!#-\\[\\]-~]*";
    for (const auto& [c, node] : next) all += (all.empty() ? "" : "|") + escaped(c) + node.pattern();
    return "(" + all + ")" + (name_ends ? "" : "?");
  }
};

constexpr size_t kMaxBytes = 64 << 10;
constexpr size_t kNone = std::string::npos;

struct Counts {
  uint64_t least = 0;
  std::optional<uint64_t> most;  // nullopt: no limit
  size_t end = 0;                // behind it
};

// "{2}", "{2,}" or "{2,5}" at `at`.
std::optional<Counts> counts_at(const std::string& pattern, size_t at) {
  Counts counts;
  const auto number = [&](uint64_t& value) {
    const size_t first = at;
    while (at < pattern.size() && at - first < 9 && pattern[at] >= '0' && pattern[at] <= '9')
      value = value * 10 + static_cast<uint64_t>(pattern[at++] - '0');
    return at > first;
  };
  ++at;
  if (!number(counts.least)) return std::nullopt;
  counts.most = counts.least;
  if (at < pattern.size() && pattern[at] == ',') {
    ++at;
    uint64_t most = 0;
    counts.most = number(most) ? std::optional(most) : std::nullopt;
  }
  if (at >= pattern.size() || pattern[at] != '}') return std::nullopt;
  counts.end = at + 1;
  return counts;
}

// Behind the escape sequence, class or opening bracket at `at`.
size_t end_of_element(const std::string& pattern, size_t at) {
  const auto next = [&](size_t i) { return i < pattern.size() ? pattern[i] : '\0'; };
  size_t end = at + 1;
  if (pattern[at] == '\\') {
    const char kind = next(at + 1);
    end = at + (kind == 'x' ? 4 : kind == 'u' ? 6 : kind == 'c' ? 3 : 2);
    if (kind == 'u' && next(at + 2) == '{') end = pattern.find('}', at) == kNone ? kNone : pattern.find('}', at) + 1;
  } else if (pattern[at] == '[') {
    while (end < pattern.size() && pattern[end] != ']') end += pattern[end] == '\\' ? 2 : 1;
    ++end;
  } else if (pattern[at] == '(' && next(at + 1) == '?') {
    end = at + (next(at + 2) == '<' ? 4 : 3);
  }
  return std::min(end, pattern.size());
}

}  // namespace

std::string exact_pattern(const std::string& pattern) {
  std::string out;
  std::vector<size_t> groups;  // where they begin in `out`
  size_t element = kNone;      // where the last one begins, that a count may follow
  for (size_t at = 0; at < pattern.size();) {
    const char c = pattern[at];
    const std::optional<Counts> counts = c == '{' ? counts_at(pattern, at) : std::nullopt;
    if (element != kNone && (c == '*' || c == '+' || c == '?' || counts)) {
      at = counts ? counts->end : at + 1;
      if (at < pattern.size() && pattern[at] == '?') ++at;  // which match is preferred says nothing about what matches
      if (!counts) {
        out += c == '?' ? "{0,1}" : std::string(1, c);
      } else if (counts->most == uint64_t{0}) {
        fail(ErrorCode::kInvalidArgument, "the pattern \"{}\" counts something zero times", pattern);
      } else if (counts->most) {
        out += fmt::format("{{{},{}}}", counts->least, *counts->most);
      } else if (counts->least < 2) {
        out += counts->least == 0 ? "*" : "+";
      } else {
        const std::string repeated = out.substr(element);
        out += fmt::format("{{{}}}", counts->least - 1) + repeated + "+";
      }
      element = kNone;
    } else {
      const size_t end = end_of_element(pattern, at);
      element = c == '|' || c == '^' || c == '$' || c == '(' ? kNone : out.size();
      if (c == '(') groups.push_back(out.size());
      if (c == ')' && !groups.empty()) {
        element = groups.back();
        groups.pop_back();
      }
      out += pattern.substr(at, end - at);
      at = end;
    }
    if (out.size() > kMaxBytes)
      fail(ErrorCode::kInvalidArgument, "the pattern \"{}\" is too long when its counts are written out", pattern);
  }
  return out;
}

std::string pattern_of_other_keys(const std::vector<std::string>& names) {
  Node root;
  for (const std::string& name : names) {
    if (!std::all_of(name.begin(), name.end(), [](char c) { return can_stand(c); })) continue;  // never matched
    Node* node = &root;
    for (char c : name) node = &node->next[c];
    node->name_ends = true;
  }
  return root.pattern();
}

}  // namespace upg::grammar
