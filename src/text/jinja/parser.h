// From tokens to the tree that evaluates itself.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "text/jinja/ast.h"

namespace upg::jinja {

/// Throws Error(kInvalidFile) with `name` and the line.
std::unique_ptr<const Program> parse(std::string_view source, const std::string& name);

}  // namespace upg::jinja
