// Reading typed fields of a tokenizer.json; every error names the file and the field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"

namespace upg {

constexpr int kMaxTokenizerNesting = 16;      // of Sequences in Sequences
constexpr size_t kMaxTokenizerSteps = 64;     // in one Sequence
constexpr int64_t kMaxTokenId = 1 << 22;      // excluded; tables are indexed by id
constexpr size_t kMaxAddedTokenBytes = 4096;  // of one added token

inline std::string field_path(std::string_view where, std::string_view key) {
  return fmt::format("{}{}{}", where, where.ends_with(':') ? " " : ".", key);
}

/// The member `key` of the object `json`; null where it is absent.
inline const nlohmann::json& member(const nlohmann::json& json, std::string_view key, std::string_view where) {
  static const nlohmann::json kNull;
  if (!json.is_object()) fail(ErrorCode::kInvalidFile, "{} must be an object, not {}", where, json.type_name());
  const auto found = json.find(key);
  return found == json.end() ? kNull : *found;
}

inline const std::string& string_member(const nlohmann::json& json, std::string_view key, std::string_view where) {
  const nlohmann::json& value = member(json, key, where);
  if (!value.is_string())
    fail(ErrorCode::kInvalidFile, "{} must be a string, not {}", field_path(where, key), value.type_name());
  return value.get_ref<const std::string&>();
}

/// `fallback` where the member is absent or null.
inline bool bool_member(const nlohmann::json& json, std::string_view key, bool fallback, std::string_view where) {
  const nlohmann::json& value = member(json, key, where);
  if (value.is_null()) return fallback;
  if (!value.is_boolean())
    fail(ErrorCode::kInvalidFile, "{} must be true or false, not {}", field_path(where, key), value.type_name());
  return value.get<bool>();
}

/// Absent and null read as an empty array.
inline const nlohmann::json& array_member(const nlohmann::json& json, std::string_view key, std::string_view where) {
  static const nlohmann::json kEmpty = nlohmann::json::array();
  const nlohmann::json& value = member(json, key, where);
  if (value.is_null()) return kEmpty;
  if (!value.is_array())
    fail(ErrorCode::kInvalidFile, "{} must be an array, not {}", field_path(where, key), value.type_name());
  return value;
}

/// A token id: an integer in [0, kMaxTokenId).
inline int32_t token_id_of(const nlohmann::json& value, std::string_view where) {
  if (!value.is_number_integer())
    fail(ErrorCode::kInvalidFile, "{} must be an integer token id, not {}", where, value.type_name());
  const bool negative = !value.is_number_unsigned() && value.get<int64_t>() < 0;
  if (negative || value.get<uint64_t>() >= static_cast<uint64_t>(kMaxTokenId))
    fail(ErrorCode::kInvalidFile, "{}: token id {} is outside 0 to {}", where, value.dump(), kMaxTokenId - 1);
  return static_cast<int32_t>(value.get<uint64_t>());
}

/// The row of `rows` named by the member "type" of `json`. Throws Error(kUnsupported) listing the rows otherwise.
template <typename Row, size_t kRows>
const Row& row_for_type(const Row (&rows)[kRows], const nlohmann::json& json, std::string_view where) {
  const std::string& type = string_member(json, "type", where);
  std::string known;
  for (const Row& row : rows) {
    if (row.name == type) return row;
    known += known.empty() ? "" : ", ";
    known += row.name;
  }
  fail(ErrorCode::kUnsupported, "{} \"{}\" is not supported; this build has {}", field_path(where, "type"), type,
       known);
}

inline void check_nesting(int depth, std::string_view where) {
  if (depth > kMaxTokenizerNesting)
    fail(ErrorCode::kUnsupported, "{} is nested more than {} deep", where, kMaxTokenizerNesting);
}

inline void check_steps(size_t steps, std::string_view where) {
  if (steps > kMaxTokenizerSteps)
    fail(ErrorCode::kUnsupported, "{}: {} steps; up to {} are supported", where, steps, kMaxTokenizerSteps);
}

}  // namespace upg
