// The fields of Metaspace, which is a pre-tokenizer and a decoder.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace upg {

enum class MetaspacePrefix { kAlways, kFirst, kNever };

/// "replacement": one character. Throws Error(kInvalidFile) naming `where`.
std::string metaspace_replacement(const nlohmann::json& json, std::string_view where);

/// "prepend_scheme", or "add_prefix_space" of older files.
MetaspacePrefix metaspace_prefix(const nlohmann::json& json, std::string_view where);

}  // namespace upg
