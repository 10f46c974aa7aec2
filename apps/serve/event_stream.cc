#include "event_stream.h"

#include "limits.h"

namespace upg::serve {

bool Events::write(const std::string& text) {
  last_ = std::chrono::steady_clock::now();
  return sink_.write(text);
}

bool Events::alive() {
  if (gone_()) return false;
  return std::chrono::steady_clock::now() - last_ < kSilence || write(": still working\n\n");
}

void stream_events(const HttpRequest& request, HttpResponse& response, ErrorForm form,
                   std::function<void(Events&)> tell) {
  response.type = "text/event-stream";
  response.headers.emplace_back("Cache-Control", "no-cache");
  response.headers.emplace_back("X-Accel-Buffering", "no");  // nginx would collect the events
  response.stream = [gone = request.gone, form, tell = std::move(tell)](EventSink& sink) {
    Events events(sink, gone);
    try {
      tell(events);
    } catch (const std::exception& error) {
      const Json json = error_json(as_request_error(error), form);
      if (form == ErrorForm::kAnthropic)
        events.event("error", json);
      else
        events.data(json);
    }
  };
}

}  // namespace upg::serve
