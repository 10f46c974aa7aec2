// Models by name: options that every command with a MODEL has, and the one function that makes a path of it.
#pragma once

#include <string>

#include "command.h"
#include "upg/hub.h"

namespace upg::cli {

/// What the help of MODEL says, everywhere.
inline constexpr const char* kModelHelp = "UPG file, checkpoint directory, or ORG/NAME[:REVISION] on a hub";

/// --revision, --endpoint, --retries and --offline, as a group of their own.
void add_hub_options(CLI::App& command, HubOptions& options);

/// A path as it is; a name's path in the cache, fetched before if it is not there. Shows progress.
std::string model_path(const std::string& model, const HubOptions& options, ModelForm form = ModelForm::kAny);

}  // namespace upg::cli
