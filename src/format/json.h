// JSON of untrusted files: nlohmann's parser, made strict where it is lenient (repeated keys, depth, NUL bytes).
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace upg {

using Json = nlohmann::json;

/// Throws Error(kInvalidFile), its message beginning with `where`, for anything but one valid UTF-8 JSON text whose
/// objects have no key twice and nest at most `max_depth` deep.
Json parse_json(std::string_view text, std::string_view where, int max_depth = 64);

/// The same, and the text must be an object.
Json parse_json_object(std::string_view text, std::string_view where, int max_depth = 64);

/// Compact JSON text. Throws Error(kInvalidArgument) naming `where` for a string that is not UTF-8.
std::string json_text(const Json& value, std::string_view where);

/// Reads "[3, 4]" into sizes; false unless it is an array of non-negative integers.
bool read_sizes(const Json& value, std::vector<uint64_t>& sizes);

}  // namespace upg
