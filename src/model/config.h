// Reading config.json: every field is typed, ranged, and named in the error when it is wrong.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace upg {

class ConfigReader {
 public:
  /// `text` is config.json; `where` names it in errors. Throws Error(kInvalidFile) if it is not a JSON object.
  ConfigReader(std::string_view text, std::string where);

  /// An integer in [low, high]; throws Error(kInvalidFile) naming the field if absent or outside.
  uint64_t integer(std::string_view key, uint64_t low, uint64_t high) const;
  uint64_t integer(std::string_view key, uint64_t low, uint64_t high, uint64_t otherwise) const;  // absent or null
  double number(std::string_view key, double low, double high, std::optional<double> otherwise = {}) const;
  bool boolean(std::string_view key, bool otherwise) const;
  /// An array of numbers in [low, high]; throws if absent.
  std::vector<double> numbers(std::string_view key, double low, double high) const;
  /// An array of strings; empty if absent or null.
  std::vector<std::string> strings(std::string_view key) const;
  /// An array of integers below `end`; empty if absent or null.
  std::vector<uint64_t> integers(std::string_view key, uint64_t end) const;
  std::string string(std::string_view key, std::string_view otherwise) const;

  /// Whether the field is there and not null.
  bool has(std::string_view key) const { return find(key) != nullptr; }

  /// The field as a reader of its own; nothing if absent or null.
  std::optional<ConfigReader> object(std::string_view key) const;

  /// Throws Error(kUnsupported): "<where>: <key> is <value>: <why>".
  [[noreturn]] void unsupported(std::string_view key, std::string_view why) const;

  /// The one name in "architectures".
  std::string architecture() const;

  const std::string& where() const { return where_; }

 private:
  struct Parsed {};
  ConfigReader(Parsed, nlohmann::json json, std::string where) : json_(std::move(json)), where_(std::move(where)) {}
  const nlohmann::json* find(std::string_view key) const;  // nullptr if absent or null

  nlohmann::json json_;
  std::string where_;
};

}  // namespace upg
