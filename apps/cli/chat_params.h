// What /params shows and sets, and what a saved conversation keeps of it: the sampling options of upg run by name.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "upg/engine.h"

namespace upg::cli {

nlohmann::ordered_json params_json(const GenerateOptions& options);

/// "name=value name=value ...". Throws Error(kInvalidArgument) naming the parameter and its range; then nothing is set.
void set_params(std::string_view text, const Engine& engine, GenerateOptions& options);

/// An object {"name": value}, in the same way.
void set_params(const nlohmann::json& values, const Engine& engine, GenerateOptions& options);

}  // namespace upg::cli
