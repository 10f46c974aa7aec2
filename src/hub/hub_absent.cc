// Models by name, in a build without libcurl: paths are taken as they are, names are refused.
#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "upg/hub.h"

namespace upg {
namespace {

[[noreturn]] void refuse(const std::string& name) {
  fail(ErrorCode::kUnsupported,
       "{}: is no path here, and this build cannot fetch models by name: it was made without libcurl (7.66 or later) "
       "and libcrypto",
       name);
}

}  // namespace

bool is_model_name(std::string_view text) {
  return std::count(text.begin(), text.end(), '/') == 1 && !text.starts_with('/') && !text.starts_with('.');
}

PullReport pull_model(const std::string& name, const HubOptions&, ModelForm) { refuse(name); }

std::string resolve_model(const std::string& model, const HubOptions&, ModelForm) {
  std::error_code none;
  if (!std::filesystem::exists(model, none) && is_model_name(model)) refuse(model);
  return model;
}

std::unique_ptr<ShardStream> stream_model(const std::string& name, const std::string&, const HubOptions&) {
  refuse(name);
}

}  // namespace upg
