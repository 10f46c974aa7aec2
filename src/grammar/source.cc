#include "grammar/source.h"

#include <algorithm>

#include "base/error.h"
#include "grammar/schema.h"
#include "grammar/xgrammar.h"

namespace upg::grammar {
namespace {

using Kind = GrammarSource::Kind;

constexpr int kMaxPartDepth = 8;
constexpr size_t kMaxParts = 4096;
constexpr int kMaxSpace = 16;  // on end: a model that is not let out of an object would fill it with space

struct Totals {
  uint64_t bytes = 0;
  size_t parts = 0, schemas = 0;
  bool control_characters = false;
};

void count(const GrammarSource& source, int depth, Totals& totals) {
  if (depth > kMaxPartDepth || ++totals.parts > kMaxParts)
    fail(ErrorCode::kInvalidArgument, "a grammar has {} parts at most, {} levels deep", kMaxParts, kMaxPartDepth);
  totals.bytes += source.text.size();
  totals.schemas += source.kind == Kind::kJsonSchema ? 1 : 0;
  if (source.kind == Kind::kRegex || source.kind == Kind::kEbnf) totals.control_characters = true;
  if (source.kind == Kind::kRegex && source.text.empty())
    fail(ErrorCode::kInvalidArgument, "the regular expression is empty");
  if (source.kind == Kind::kText)
    totals.control_characters |= std::any_of(source.text.begin(), source.text.end(), [](char c) {
      return static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\r';
    });
  const bool group = source.kind == Kind::kSequence || source.kind == Kind::kChoice;
  if (group && source.parts.empty()) fail(ErrorCode::kInvalidArgument, "a grammar has a group without parts");
  for (const GrammarSource& part : source.parts) count(part, depth + 1, totals);
}

Schema format_of(const GrammarSource& source, const PatternFault& fault) {
  switch (source.kind) {
    case Kind::kText:
      return {{"type", "const_string"}, {"value", source.text}};
    case Kind::kJsonSchema:
      return {{"type", "json_schema"},
              {"json_schema", normal_schema(source.text, source.relaxed, fault)},
              {"max_whitespace_cnt", kMaxSpace}};
    case Kind::kRegex:
      return {{"type", "regex"}, {"pattern", source.text}};
    case Kind::kEbnf:
      return {{"type", "grammar"}, {"grammar", source.text}};
    default:
      break;
  }
  Schema elements = Schema::array();
  for (const GrammarSource& part : source.parts) elements.push_back(format_of(part, fault));
  return {{"type", source.kind == Kind::kSequence ? "sequence" : "or"}, {"elements", std::move(elements)}};
}

}  // namespace

Tag make_tag(const GrammarSource& source, uint64_t max_bytes, bool check_patterns) {
  Totals totals;
  count(source, 0, totals);
  if (totals.bytes > max_bytes)
    fail(ErrorCode::kInvalidArgument, "the grammar has {} bytes, {} are the limit", totals.bytes, max_bytes);
  if (totals.schemas > 0 && totals.control_characters)
    fail(ErrorCode::kInvalidArgument, "beside a JSON schema stand only texts without control characters");
  const PatternFault fault =
      check_patterns ? PatternFault(pattern_fault) : [](const std::string&) { return std::string(); };
  try {
    return {Schema{{"type", "structural_tag"}, {"format", format_of(source, fault)}}.dump(), totals.control_characters};
  } catch (const Schema::exception&) {  // dump: a string that is not UTF-8
    fail(ErrorCode::kInvalidArgument, "the grammar is not valid UTF-8");
  }
}

}  // namespace upg::grammar
