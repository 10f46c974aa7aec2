// A request and a response as the routes see them: whatever carries them is the business of http_server.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace upg::serve {

struct HttpRequest {
  std::string method, path, body;
  std::string client;     // address of the other end
  std::string parameter;  // what stands in the path where the route has a star
  std::function<std::string(const char* name)> header = [](const char*) { return std::string(); };
  std::function<bool()> gone = [] { return false; };  // whether the client has left
};

class EventSink {
 public:
  virtual ~EventSink() = default;
  /// False when the client is gone.
  virtual bool write(std::string_view bytes) = 0;
};

struct HttpResponse {
  int status = 200;
  std::string type = "application/json", body;
  std::vector<std::pair<std::string, std::string>> headers;
  std::function<void(EventSink&)> stream;  // in place of `body`, called once; must not throw
  std::shared_ptr<std::string> note;       // of the handler, for the log
};

}  // namespace upg::serve
