#include "hub/settings.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/mapped_file.h"

namespace upg::hub {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1));
}

std::string home() {
  std::string folder = variable("HOME");
  if (folder.empty()) fail(ErrorCode::kInvalidArgument, "HOME is not set: set HF_HOME to the folder for models");
  return folder;
}

std::string expanded(const std::string& path) {
  return path == "~" || path.starts_with("~/") ? home() + path.substr(1) : path;
}

// The first that is set, else `fallback` of the home folder.
std::string folder_of(const char* name, const char* fallback) {
  const std::string value = variable(name);
  return value.empty() ? home() + "/" + fallback : expanded(value);
}

bool is_true(const char* name) {
  std::string value = variable(name);
  std::transform(value.begin(), value.end(), value.begin(), [](unsigned char c) { return std::toupper(c); });
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

std::string hf_home() {
  const std::string given = variable("HF_HOME");
  return given.empty() ? folder_of("XDG_CACHE_HOME", ".cache") + "/huggingface" : expanded(given);
}

std::string cache_folder() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"})
    if (!variable(name).empty()) return expanded(variable(name));
  return hf_home() + "/hub";
}

std::string token() {
  std::string text = trimmed(variable("HF_TOKEN"));
  if (text.empty()) text = trimmed(variable("HUGGING_FACE_HUB_TOKEN"));
  std::string from = "HF_TOKEN";
  if (text.empty()) {
    from = variable("HF_TOKEN_PATH").empty() ? hf_home() + "/token" : expanded(variable("HF_TOKEN_PATH"));
    std::error_code none;
    if (fs::is_regular_file(from, none)) text = trimmed(read_file(from));
  }
  // It becomes part of a header: nothing may end the line. Its text is in no message.
  const bool plain = std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 127; });
  if (!plain || text.size() > 4096)
    fail(ErrorCode::kInvalidArgument, "{}: the token is not one word of plain characters", from);
  return text;
}

std::string config_path() { return folder_of("XDG_CONFIG_HOME", ".config") + "/upg/config"; }

// Lines of KEY = VALUE; # begins a comment.
std::string endpoint_of_config() {
  const std::string path = config_path();
  std::error_code none;
  if (!fs::exists(path, none)) return {};
  const std::string text = read_file(path);
  std::string endpoint;
  size_t number = 0;
  for (size_t begin = 0; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = trimmed(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
    if (line.empty() || line[0] == '#') continue;
    const size_t equals = line.find('=');
    if (equals == std::string::npos || trimmed(line.substr(0, equals)) != "endpoint")
      fail(ErrorCode::kInvalidFile, "{}:{}: a line is \"endpoint = URL\", or a comment that begins with #", path,
           number + 1);
    endpoint = trimmed(line.substr(equals + 1));
  }
  return endpoint;
}

}  // namespace

Settings settings(const HubOptions& options) {
  Settings s;
  s.endpoint = trimmed(options.endpoint);
  if (s.endpoint.empty()) s.endpoint = trimmed(variable("HF_ENDPOINT"));
  if (s.endpoint.empty()) s.endpoint = endpoint_of_config();
  while (s.endpoint.ends_with('/')) s.endpoint.pop_back();
  const bool http = s.endpoint.starts_with("https://") || s.endpoint.starts_with("http://");
  if (!s.endpoint.empty() && (!http || s.endpoint.find_first_of(" @?#\\") != std::string::npos))
    fail(ErrorCode::kInvalidArgument, "the hub's endpoint must be http://HOST or https://HOST, with nothing behind it");
  s.token = token();
  s.cache = cache_folder();
  for (const char* name : {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"})
    if (s.ca_file.empty()) s.ca_file = variable(name);
  s.offline = options.offline || is_true("HF_HUB_OFFLINE");
  s.connections = std::clamp(options.connections, 1U, 64U);
  s.retries = std::min(options.retries, 1000U);
  const long timeout = std::strtol(variable("HF_HUB_DOWNLOAD_TIMEOUT").c_str(), nullptr, 10);
  if (timeout > 0) s.timeout = std::min(timeout, 3600L);
  return s;
}

void need_endpoint(const Settings& settings, const std::string& model) {
  if (settings.endpoint.empty())
    fail(ErrorCode::kInvalidArgument,
         "{}: is no path here, and there is no hub to look for it: give --endpoint URL, set HF_ENDPOINT, or put "
         "\"endpoint = URL\" into {}",
         model, config_path());
}

}  // namespace upg::hub
