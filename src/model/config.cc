#include "model/config.h"

#include "base/error.h"
#include "format/json.h"

namespace upg {

ConfigReader::ConfigReader(std::string_view text, std::string where) : where_(std::move(where)) {
  json_ = parse_json_object(text, where_);
}

const nlohmann::json* ConfigReader::find(std::string_view key) const {
  const auto found = json_.find(key);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

uint64_t ConfigReader::integer(std::string_view key, uint64_t low, uint64_t high) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) fail(ErrorCode::kInvalidFile, "{}: field \"{}\" is missing", where_, key);
  if (!value->is_number_unsigned() || value->get<uint64_t>() < low || value->get<uint64_t>() > high)
    fail(ErrorCode::kInvalidFile, "{}: {} is {}, must be an integer from {} to {}", where_, key, value->dump(), low,
         high);
  return value->get<uint64_t>();
}

uint64_t ConfigReader::integer(std::string_view key, uint64_t low, uint64_t high, uint64_t otherwise) const {
  return find(key) ? integer(key, low, high) : otherwise;
}

double ConfigReader::number(std::string_view key, double low, double high, std::optional<double> otherwise) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) {
    if (otherwise) return *otherwise;
    fail(ErrorCode::kInvalidFile, "{}: field \"{}\" is missing", where_, key);
  }
  if (!value->is_number() || !(value->get<double>() >= low && value->get<double>() <= high))
    fail(ErrorCode::kInvalidFile, "{}: {} is {}, must be a number from {} to {}", where_, key, value->dump(), low,
         high);
  return value->get<double>();
}

bool ConfigReader::boolean(std::string_view key, bool otherwise) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean())
    fail(ErrorCode::kInvalidFile, "{}: {} is {}, must be true or false", where_, key, value->dump());
  return value->get<bool>();
}

std::vector<double> ConfigReader::numbers(std::string_view key, double low, double high) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr || !value->is_array())
    fail(ErrorCode::kInvalidFile, "{}: field \"{}\" must be an array of numbers", where_, key);
  std::vector<double> list;
  for (const nlohmann::json& number : *value) {
    if (!number.is_number() || !(number.get<double>() >= low && number.get<double>() <= high))
      fail(ErrorCode::kInvalidFile, "{}: {} has {}, must be numbers from {} to {}", where_, key, number.dump(), low,
           high);
    list.push_back(number.get<double>());
  }
  return list;
}

std::vector<std::string> ConfigReader::strings(std::string_view key) const {
  std::vector<std::string> list;
  const nlohmann::json* value = find(key);
  if (value == nullptr) return list;
  if (!value->is_array()) fail(ErrorCode::kInvalidFile, "{}: {} must be an array of strings", where_, key);
  for (const nlohmann::json& text : *value) {
    if (!text.is_string()) fail(ErrorCode::kInvalidFile, "{}: {} has {}, must be strings", where_, key, text.dump());
    list.push_back(text.get<std::string>());
  }
  return list;
}

std::vector<uint64_t> ConfigReader::integers(std::string_view key, uint64_t end) const {
  std::vector<uint64_t> list;
  const nlohmann::json* value = find(key);
  if (value == nullptr) return list;
  if (!value->is_array()) fail(ErrorCode::kInvalidFile, "{}: {} must be an array of integers", where_, key);
  for (const nlohmann::json& number : *value) {
    if (!number.is_number_unsigned() || number.get<uint64_t>() >= end)
      fail(ErrorCode::kInvalidFile, "{}: {} has {}, must be integers below {}", where_, key, number.dump(), end);
    list.push_back(number.get<uint64_t>());
  }
  return list;
}

std::string ConfigReader::string(std::string_view key, std::string_view otherwise) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return std::string(otherwise);
  if (!value->is_string()) fail(ErrorCode::kInvalidFile, "{}: {} is {}, must be a string", where_, key, value->dump());
  return value->get<std::string>();
}

std::optional<ConfigReader> ConfigReader::object(std::string_view key) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_object()) fail(ErrorCode::kInvalidFile, "{}: {} is {}, must be an object", where_, key, value->dump());
  return ConfigReader(Parsed{}, *value, fmt::format("{}: {}", where_, key));
}

void ConfigReader::unsupported(std::string_view key, std::string_view why) const {
  const nlohmann::json* value = find(key);
  fail(ErrorCode::kUnsupported, "{}: {} is {}: {}", where_, key, value ? value->dump() : "absent", why);
}

std::string ConfigReader::architecture() const {
  const nlohmann::json* value = find("architectures");
  if (value == nullptr || !value->is_array() || value->size() != 1 || !(*value)[0].is_string())
    fail(ErrorCode::kInvalidFile, "{}: \"architectures\" must be an array with one name", where_);
  return (*value)[0].get<std::string>();
}

}  // namespace upg
