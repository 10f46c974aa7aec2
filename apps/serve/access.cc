#include "access.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <fstream>

#include "upg/error.h"

namespace upg::serve {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return std::tolower(c); });
  return out;
}

// What the text says up to its first character that is no digit.
std::string from_base64(std::string_view text) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes = {};
  uint32_t bits = 0;
  int held = 0;
  for (char c : text) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) break;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    bytes += static_cast<char>(bits >> held & 0xff);
  }
  return bytes;
}

}  // namespace

std::vector<std::string> read_keys(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw Error(ErrorCode::kNotFound, fmt::format("--api-key-file {}: cannot be read", path));
  std::vector<std::string> keys;
  for (std::string line; std::getline(file, line);) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.pop_back();
    if (line.empty() || line[0] == '#') continue;
    if (line.find_first_of(" \t") != std::string::npos)
      throw Error(ErrorCode::kInvalidFile, fmt::format("--api-key-file {}: a key has a space in it", path));
    keys.push_back(line);
  }
  if (keys.empty()) throw Error(ErrorCode::kInvalidFile, fmt::format("--api-key-file {}: has no key", path));
  return keys;
}

bool same_key(std::string_view key, std::string_view given) {
  unsigned difference = key.size() == given.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i)
    difference |= static_cast<unsigned char>(given[i]) ^ static_cast<unsigned char>(key[i % key.size()]);
  return difference == 0;
}

std::string_view host_of(std::string_view authority) {
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    return end == std::string_view::npos ? authority : authority.substr(1, end - 1);
  }
  return authority.substr(0, authority.find(':'));
}

bool is_loopback(std::string_view host) {
  const bool v4 = host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string_view::npos;
  return v4 || host == "localhost" || host == "::1";
}

Access::Access(std::string host, std::vector<std::string> keys, std::string origin)
    : host_(lower(host)), keys_(std::move(keys)), origin_(std::move(origin)), loopback_(is_loopback(host_)) {}

void Access::check_host(const HttpRequest& request) const {
  const std::string authority = lower(request.header("Host"));
  const std::string_view name = host_of(authority);
  // A page of another host may have let its own name point here; then the browser would send that name.
  if (loopback_ && !is_loopback(name) && name != host_)
    throw RequestError(403,
                       fmt::format("the request is for the host \"{}\", this server answers to {} and localhost",
                                   name.substr(0, 100), host_),
                       "Host");
  const std::string origin = request.header("Origin");
  if (!origin.empty() && lower(origin) != "http://" + authority && !allows_origin(request))
    throw RequestError(403, "pages of other origins are not let in: --cors ORIGIN allows one", "Origin");
}

void Access::check_key(const HttpRequest& request) const {
  if (keys_.empty()) return;
  std::string given = request.header("x-api-key");
  const std::string authorization = request.header("Authorization");
  if (lower(authorization.substr(0, 7)) == "bearer ") given = authorization.substr(7);
  // What a browser asks for when the page is opened: the name does not matter.
  if (lower(authorization.substr(0, 6)) == "basic ") {
    const std::string pair = from_base64(authorization.substr(6));
    const size_t colon = pair.find(':');
    given = colon == std::string::npos ? "" : pair.substr(colon + 1);
  }
  if (given.empty())
    throw RequestError(401, "an API key is needed: Authorization: Bearer KEY, or x-api-key: KEY", {},
                       "missing_api_key");
  bool found = false;
  for (const std::string& key : keys_) found |= same_key(key, given);
  if (!found) throw RequestError(401, "the API key is not known", {}, "invalid_api_key");
}

bool Access::allows_origin(const HttpRequest& request) const {
  return !origin_.empty() && (origin_ == "*" || origin_ == request.header("Origin"));
}

void Access::add_cors(const HttpRequest& request, HttpResponse& response) const {
  if (origin_.empty()) return;
  response.headers.emplace_back("Vary", "Origin");
  if (!allows_origin(request)) return;
  response.headers.emplace_back("Access-Control-Allow-Origin", origin_);
  response.headers.emplace_back("Access-Control-Expose-Headers", "Retry-After");
}

}  // namespace upg::serve
