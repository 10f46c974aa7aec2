// Who may ask: API keys, the Host header against DNS rebinding, origins of browsers.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "errors.h"
#include "http.h"

namespace upg::serve {

class Access {
 public:
  /// `host`: what the server is bound to. `keys`: empty lets everybody in. `origin`: of CORS, "*", or empty for none.
  Access(std::string host, std::vector<std::string> keys, std::string origin);

  /// Throws RequestError 403.
  void check_host(const HttpRequest& request) const;
  /// Throws RequestError 401.
  void check_key(const HttpRequest& request) const;
  /// Whether a browser may read the response.
  bool allows_origin(const HttpRequest& request) const;
  void add_cors(const HttpRequest& request, HttpResponse& response) const;

 private:
  std::string host_;
  std::vector<std::string> keys_;
  std::string origin_;
  bool loopback_;
};

/// One key a line; lines that are empty or begin with # are none. Throws Error for a file without keys.
std::vector<std::string> read_keys(const std::string& path);

/// Takes as long for any text of one length.
bool same_key(std::string_view key, std::string_view given);
bool is_loopback(std::string_view host);
/// "[::1]:8080" -> "::1", "localhost:80" -> "localhost".
std::string_view host_of(std::string_view authority);

}  // namespace upg::serve
