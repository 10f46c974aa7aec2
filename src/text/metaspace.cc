#include "text/metaspace.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace upg {
namespace {

struct PrefixRow {
  std::string_view name;
  MetaspacePrefix prefix;
};
constexpr PrefixRow kPrefixes[] = {
    {"always", MetaspacePrefix::kAlways},
    {"first", MetaspacePrefix::kFirst},
    {"never", MetaspacePrefix::kNever},
};

}  // namespace

std::string metaspace_replacement(const nlohmann::json& json, std::string_view where) {
  const std::string& text = string_member(json, "replacement", where);
  if (text.empty() || code_point_at(text, 0).bytes != text.size())
    fail(ErrorCode::kInvalidFile, "{} must be one character, not \"{}\"", field_path(where, "replacement"), text);
  return text;
}

MetaspacePrefix metaspace_prefix(const nlohmann::json& json, std::string_view where) {
  const bool add = bool_member(json, "add_prefix_space", true, where);
  if (member(json, "prepend_scheme", where).is_null()) return add ? MetaspacePrefix::kAlways : MetaspacePrefix::kNever;
  const std::string& name = string_member(json, "prepend_scheme", where);
  for (const PrefixRow& row : kPrefixes) {
    if (row.name != name) continue;
    if (!add && row.prefix != MetaspacePrefix::kNever)
      fail(ErrorCode::kInvalidFile, "{} \"{}\" contradicts add_prefix_space", field_path(where, "prepend_scheme"),
           name);
    return row.prefix;
  }
  fail(ErrorCode::kUnsupported, "{} \"{}\" is not supported", field_path(where, "prepend_scheme"), name);
}

}  // namespace upg
