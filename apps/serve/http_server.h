// Accepts connections, a thread for each and a bounded number of them, and hands requests to two functions. What a
// request means is not known here.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "http.h"

namespace upg::serve {

struct HttpHandlers {
  /// Before the body is read: a response that refuses the request.
  std::function<std::optional<HttpResponse>(const HttpRequest&)> check;
  std::function<HttpResponse(const HttpRequest&)> handle;
  /// The response to a request that broke off or was too large.
  std::function<HttpResponse(const HttpRequest&, int status, const std::string& message)> fail;
};

class HttpServer {
 public:
  /// Binds; 0 takes any free port. Throws Error(kIo).
  HttpServer(const std::string& host, int port, size_t connections, HttpHandlers handlers);
  ~HttpServer();

  int port() const;
  void start();
  /// Closes all connections and waits for their threads.
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace upg::serve
