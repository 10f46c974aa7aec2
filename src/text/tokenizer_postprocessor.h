// Post-processors: the special tokens put around an encoded text.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

namespace upg {

struct Surroundings {
  std::vector<int32_t> before;
  std::vector<int32_t> after;
};

/// The "post_processor" of a tokenizer.json: null or an object whose type is in the list. `where` names the field.
/// Throws Error(kInvalidFile / kUnsupported).
Surroundings make_surroundings(const nlohmann::json& json, std::string_view where);

}  // namespace upg
