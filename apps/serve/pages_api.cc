// What is about the server itself: GET /health, /metrics, /openapi.json and the page at /.
#include <string_view>

#include "routes.h"

namespace upg {
// By cmake/embed.cmake. NOLINTBEGIN(readability-identifier-naming)
extern const unsigned char serve_openapi[];
extern const unsigned long serve_openapi_size;
extern const unsigned char serve_page[];
extern const unsigned long serve_page_size;
// NOLINTEND(readability-identifier-naming)
}  // namespace upg

namespace upg::serve {

void show_health(Service& service, const HttpRequest&, HttpResponse& response) {
  response.status = service.draining ? 503 : 200;
  response.body = service.draining ? R"({"status":"stopping"})" : R"({"status":"ok"})";
}

void show_metrics(Service& service, const HttpRequest&, HttpResponse& response) {
  response.type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = service.metrics.text(*service.models);
}

void show_openapi(Service&, const HttpRequest&, HttpResponse& response) {
  response.body.assign(reinterpret_cast<const char*>(serve_openapi), serve_openapi_size);
}

void show_page(Service&, const HttpRequest&, HttpResponse& response) {
  response.type = "text/html; charset=utf-8";
  response.body.assign(reinterpret_cast<const char*>(serve_page), serve_page_size);
  // The page brings everything with it and talks with this server alone.
  response.headers.emplace_back("Content-Security-Policy",
                                "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
                                "img-src data: blob:; font-src data:; connect-src 'self'; base-uri 'none'; "
                                "form-action 'none'; frame-ancestors 'none'");
  response.headers.emplace_back("X-Content-Type-Options", "nosniff");
  response.headers.emplace_back("Referrer-Policy", "no-referrer");
}

}  // namespace upg::serve
