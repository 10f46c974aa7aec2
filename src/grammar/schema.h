// JSON schemas, reduced to what xgrammar's converter enforces to the letter. Whatever matches the result is valid by
// the schema; what cannot be said that way is refused by keyword and place.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace upg::grammar {

using Schema = nlohmann::ordered_json;  // properties come in the schema's order

/// Why a pattern cannot be matched within a JSON string, or an empty text.
using PatternFault = std::function<std::string(const std::string& pattern)>;

constexpr int kMaxSchemaDepth = 64;
constexpr size_t kMaxSchemaNodes = 4096;      // subschemas
constexpr size_t kMaxEnumBytes = 32 << 10;    // of the values of all enums
constexpr int64_t kMaxStringLength = 100000;  // minLength and maxLength
constexpr int64_t kMaxItemCount = 100000;     // minItems and maxItems

/// The schema of `text`, normalised. `relaxed`: keywords that cannot be enforced are left out instead of refused.
/// Throws Error(kInvalidArgument) naming keyword and place (a JSON pointer).
Schema normal_schema(std::string_view text, bool relaxed, const PatternFault& pattern_fault);

}  // namespace upg::grammar
