// Server-sent events. What happens to a stream after it began is told within it: exceptions become an event.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "errors.h"
#include "http.h"
#include "json_reader.h"

namespace upg::serve {

class Events {
 public:
  Events(EventSink& sink, std::function<bool()> gone) : sink_(sink), gone_(std::move(gone)) {}

  /// All return false when the client is gone.
  bool data(const Json& json) { return write("data: " + to_text(json) + "\n\n"); }
  bool event(const std::string& name, const Json& json) {
    return write("event: " + name + "\ndata: " + to_text(json) + "\n\n");
  }
  bool done() { return write("data: [DONE]\n\n"); }
  /// Sends a comment after a long silence, for those in between who would close the connection.
  bool alive();

 private:
  bool write(const std::string& text);

  EventSink& sink_;
  std::function<bool()> gone_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

/// Makes `response` a stream that `tell` writes.
void stream_events(const HttpRequest& request, HttpResponse& response, ErrorForm form,
                   std::function<void(Events&)> tell);

}  // namespace upg::serve
