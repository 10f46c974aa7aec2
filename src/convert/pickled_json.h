// A pickled dict as JSON text.
#pragma once

#include <string>
#include <string_view>

#include "pickle/value.h"

namespace upg {

/// Throws Error(kInvalidFile), its message beginning with `what`, for values that JSON does not have, for more than 64
/// levels (a dict that contains itself, for one) and for more text than any configuration has.
std::string pickled_json(const pickle::Tree& tree, const pickle::Value& value, std::string_view what);

}  // namespace upg
