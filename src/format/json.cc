#include "format/json.h"

#include <set>
#include <vector>

#include "base/error.h"

namespace upg {

Json parse_json(std::string_view text, std::string_view where, int max_depth) {
  // The parser would take a NUL byte for the end and ignore what follows, and skip a byte order mark.
  if (text.find('\0') != std::string_view::npos) fail(ErrorCode::kInvalidFile, "{}: JSON text holds a NUL byte", where);
  if (text.starts_with("\xef\xbb\xbf"))
    fail(ErrorCode::kInvalidFile, "{}: JSON text begins with a byte order mark; remove it", where);

  int depth = 0;
  std::vector<std::set<std::string>> keys;  // of the objects being read
  const auto check = [&](int, Json::parse_event_t event, Json& value) {
    switch (event) {
      case Json::parse_event_t::object_start:
        keys.emplace_back();
        [[fallthrough]];
      case Json::parse_event_t::array_start:
        if (++depth > max_depth)
          fail(ErrorCode::kInvalidFile, "{}: JSON nests deeper than {} levels", where, max_depth);
        break;
      case Json::parse_event_t::key:
        if (!keys.back().insert(value.get_ref<const std::string&>()).second)
          fail(ErrorCode::kInvalidFile, "{}: JSON key {:?} appears twice in one object", where,
               value.get_ref<const std::string&>());
        break;
      case Json::parse_event_t::object_end:
        keys.pop_back();
        [[fallthrough]];
      case Json::parse_event_t::array_end:
        --depth;
        break;
      case Json::parse_event_t::value:
        break;
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), check);
  } catch (const Json::parse_error& error) {
    fail(ErrorCode::kInvalidFile, "{}: not valid JSON at byte {} of {}", where, error.byte, text.size());
  } catch (const Json::exception&) {
    fail(ErrorCode::kInvalidFile, "{}: not valid JSON: a number is out of range", where);
  }
}

Json parse_json_object(std::string_view text, std::string_view where, int max_depth) {
  Json value = parse_json(text, where, max_depth);
  if (!value.is_object())
    fail(ErrorCode::kInvalidFile, "{}: expected a JSON object, found {}", where, value.type_name());
  return value;
}

std::string json_text(const Json& value, std::string_view where) {
  try {
    return value.dump();
  } catch (const Json::exception&) {
    fail(ErrorCode::kInvalidArgument, "{}: text is not UTF-8, so JSON cannot hold it", where);
  }
}

bool read_sizes(const Json& value, std::vector<uint64_t>& sizes) {
  if (!value.is_array()) return false;
  sizes.clear();
  for (const Json& size : value) {
    if (!size.is_number_unsigned()) return false;
    sizes.push_back(size.get<uint64_t>());
  }
  return true;
}

}  // namespace upg
