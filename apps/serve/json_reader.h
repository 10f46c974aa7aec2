// JSON of requests: bounded parsing, and fields by name and type. Errors are RequestError(400) naming the field.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace upg::serve {

using Json = nlohmann::ordered_json;

/// Compact text; a string that is not UTF-8 is repaired.
std::string to_text(const Json& value);

/// Anything that is valid JSON, nests at most kMaxJsonDepth deep and has at most kMaxJsonKeys keys in an object.
Json parse_json(std::string_view text);
/// The same, and an object.
Json parse_object(std::string_view body);

[[noreturn]] void refuse(const std::string& field, const std::string& message);
[[noreturn]] void refuse_type(const std::string& field, const char* wanted, const Json& value);

/// The fields of an object. One that is null counts as absent.
class Fields {
 public:
  /// `where`: the object's own name in errors, or empty for the body. `object` must outlive this.
  explicit Fields(const Json& object, std::string where = {});

  const Json* find(const char* name) const;
  std::string path(const char* name) const;

  std::optional<std::string> text(const char* name) const;
  std::string required_text(const char* name) const;
  std::optional<bool> flag(const char* name) const;
  std::optional<double> number(const char* name, double min, double max) const;
  std::optional<int64_t> integer(const char* name, int64_t min, int64_t max) const;
  /// nullptr where there is none.
  const Json* array(const char* name, size_t max) const;
  const Json* object(const char* name) const;

 private:
  const Json& object_;
  std::string where_;
};

}  // namespace upg::serve
