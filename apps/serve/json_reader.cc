#include "json_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "errors.h"
#include "limits.h"

namespace upg::serve {

std::string to_text(const Json& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

void refuse(const std::string& field, const std::string& message) { throw RequestError(400, message, field); }

void refuse_type(const std::string& field, const char* wanted, const Json& value) {
  refuse(field, fmt::format("{} is of type {}, must be {}", field, value.type_name(), wanted));
}

Json parse_json(std::string_view text) {
  std::vector<size_t> keys;
  int depth = 0;
  const auto check = [&](int, Json::parse_event_t event, Json&) {
    using Event = Json::parse_event_t;
    if (event == Event::object_start) keys.push_back(0);
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::object_start || event == Event::array_start) ++depth;
    if (event == Event::object_end || event == Event::array_end) --depth;
    if (depth > kMaxJsonDepth)
      throw RequestError(400, fmt::format("the JSON nests deeper than {} levels", kMaxJsonDepth));
    if (event == Event::key && ++keys.back() > kMaxJsonKeys)
      throw RequestError(400, fmt::format("an object of the JSON has more than {} keys", kMaxJsonKeys));
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), check);
  } catch (const Json::parse_error& error) {
    throw RequestError(400, fmt::format("not valid JSON at byte {} of {}", error.byte, text.size()));
  } catch (const Json::exception&) {
    throw RequestError(400, "not valid JSON: a number is out of range");
  }
}

Json parse_object(std::string_view body) {
  Json value = parse_json(body);
  if (!value.is_object())
    throw RequestError(400, fmt::format("the body is of type {}, must be an object", value.type_name()));
  return value;
}

Fields::Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) refuse_type(where_.empty() ? "body" : where_, "an object", object);
}

std::string Fields::path(const char* name) const { return where_.empty() ? name : where_ + "." + name; }

const Json* Fields::find(const char* name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<std::string> Fields::text(const char* name) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse_type(path(name), "a string", *value);
  return value->get<std::string>();
}

std::string Fields::required_text(const char* name) const {
  std::optional<std::string> value = text(name);
  if (!value) refuse(path(name), fmt::format("{} is missing: it must be a string", path(name)));
  return *std::move(value);
}

std::optional<bool> Fields::flag(const char* name) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) refuse_type(path(name), "true or false", *value);
  return value->get<bool>();
}

std::optional<double> Fields::number(const char* name, double min, double max) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) refuse_type(path(name), "a number", *value);
  const auto number = value->get<double>();
  if (!(number >= min && number <= max))
    refuse(path(name), fmt::format("{} is {}, must be from {} to {}", path(name), number, min, max));
  return number;
}

std::optional<int64_t> Fields::integer(const char* name, int64_t min, int64_t max) const {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const bool whole = value->is_number_float() && std::nearbyint(value->get<double>()) == value->get<double>();
  if (!value->is_number_integer() && !whole) refuse_type(path(name), "an integer", *value);
  // Through double first: a number outside 64 bits is outside every range as well.
  const auto about = value->get<double>();
  const bool fits = about >= -9.2e18 && about <= 9.2e18;
  if (!fits || value->get<int64_t>() < min || value->get<int64_t>() > max)
    refuse(path(name), fmt::format("{} is {}, must be from {} to {}", path(name), value->dump(), min, max));
  return value->get<int64_t>();
}

const Json* Fields::array(const char* name, size_t max) const {
  const Json* value = find(name);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) refuse_type(path(name), "an array", *value);
  if (value->size() > max)
    refuse(path(name), fmt::format("{} has {} entries, {} are the limit", path(name), value->size(), max));
  return value;
}

const Json* Fields::object(const char* name) const {
  const Json* value = find(name);
  if (value != nullptr && !value->is_object()) refuse_type(path(name), "an object", *value);
  return value;
}

}  // namespace upg::serve
