#include "routes.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace upg::serve {
namespace {

constexpr ErrorForm kAnthropic = ErrorForm::kAnthropic;

constexpr Route kRoutes[] = {
    {"POST", "/v1/chat/completions", chat_completions},
    {"POST", "/v1/completions", completions},
    {"POST", "/v1/responses", responses},
    {"POST", "/v1/messages", messages, kAnthropic},
    {"POST", "/v1/messages/count_tokens", count_message_tokens, kAnthropic},
    {"GET", "/v1/models", list_models},
    {"GET", "/v1/models/*", show_model},
    {"POST", "/v1/embeddings", embeddings},
    {"POST", "/tokenize", tokenize_text},
    {"POST", "/detokenize", detokenize_tokens},
    {"GET", "/health", show_health, ErrorForm::kOpenAi, /*open=*/true},
    {"GET", "/metrics", show_metrics},
    {"GET", "/openapi.json", show_openapi},
    {"GET", "/", show_page},
};

bool matches(const Route& route, std::string_view path, std::string* parameter = nullptr) {
  std::string_view pattern = route.path;
  if (!pattern.ends_with('*')) return path == pattern;
  pattern.remove_suffix(1);
  if (!path.starts_with(pattern) || path.size() == pattern.size()) return false;
  if (parameter != nullptr) *parameter = path.substr(pattern.size());
  return true;
}

bool method_matches(const Route& route, std::string_view method) {
  return method == route.method || (method == "HEAD" && std::string_view(route.method) == "GET");
}

const Route* find_path(std::string_view path) {
  for (const Route& route : kRoutes)
    if (matches(route, path)) return &route;
  return nullptr;
}

const Route& find_route(const HttpRequest& request) {
  const Route* route = find_path(request.path);
  if (route == nullptr)
    throw RequestError(404,
                       fmt::format("there is no {}: GET /openapi.json has all routes", request.path.substr(0, 200)), {},
                       "unknown_url");
  if (!method_matches(*route, request.method))
    throw RequestError(405, fmt::format("{} is asked with {}", route->path, route->method));
  return *route;
}

ErrorForm form_of(const HttpRequest& request) {
  const Route* route = find_path(request.path);
  return route == nullptr ? ErrorForm::kOpenAi : route->form;
}

// Printable text alone: a path is the client's, the log is ours.
std::string printable(std::string_view text) {
  std::string out(text.substr(0, 200));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return out;
}

void log_line(const HttpRequest& request, int status, double seconds, const std::string& note) {
  const auto now = std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
  const std::string line = fmt::format(
      "{:%FT%TZ} {} {} {} {} {:.3f}s{}{}\n", fmt::gmtime(std::chrono::system_clock::to_time_t(now)), request.client,
      printable(request.method), printable(request.path), status, seconds, note.empty() ? "" : " ", printable(note));
  std::fwrite(line.data(), 1, line.size(), stderr);  // in one piece, as several threads write
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

HttpResponse preflight(const Access& access, const HttpRequest& request) {
  if (!access.allows_origin(request)) throw RequestError(403, "CORS is off: --cors ORIGIN turns it on");
  HttpResponse response;
  response.status = 204;
  response.headers = {
      {"Access-Control-Allow-Methods", "GET, POST"},
      {"Access-Control-Allow-Headers", request.header("Access-Control-Request-Headers").empty()
                                           ? std::string("Authorization, Content-Type, X-Api-Key")
                                           : printable(request.header("Access-Control-Request-Headers"))},
      {"Access-Control-Max-Age", "600"}};
  access.add_cors(request, response);
  return response;
}

}  // namespace

std::span<const Route> routes() { return kRoutes; }

std::optional<HttpResponse> check_request(Service& service, const Access& access, const HttpRequest& request) {
  try {
    access.check_host(request);
    if (request.method == "OPTIONS") return preflight(access, request);
    const Route& route = find_route(request);
    if (!route.open) access.check_key(request);
    if (!route.open && service.draining) throw RequestError(503, "the server is shutting down", {}, "shutting_down");
    if (request.method == "POST") {
      // Forms can be sent by pages of other hosts without being asked; JSON cannot.
      const std::string type = request.header("Content-Type");
      if (!type.starts_with("application/json"))
        throw RequestError(415, fmt::format("the Content-Type is \"{}\", must be application/json", printable(type)));
    }
    return std::nullopt;
  } catch (const std::exception& error) {
    return failed_request(access, request, as_request_error(error));
  }
}

HttpResponse failed_request(const Access& access, const HttpRequest& request, const RequestError& error) {
  HttpResponse response = error_response(error, form_of(request));
  const Route* route = find_path(request.path);
  if (error.status == 401 && route != nullptr && route->handle == show_page)  // a browser then asks for the key itself
    response.headers = {{"WWW-Authenticate", "Basic realm=\"UPG: the API key is the password\""}};
  access.add_cors(request, response);
  log_line(request, error.status, 0, {});
  return response;
}

HttpResponse handle_request(Service& service, const Access& access, const HttpRequest& request) {
  const auto start = std::chrono::steady_clock::now();
  const Route& route = *find_path(request.path);
  HttpRequest own = request;
  matches(route, request.path, &own.parameter);
  service.metrics.begin();
  HttpResponse response;
  response.note = std::make_shared<std::string>();
  const std::shared_ptr<std::string> note = response.note;
  if (service.log_prompts && !own.body.empty()) {
    const std::string line = fmt::format("  {}\n", own.body);
    std::fwrite(line.data(), 1, line.size(), stderr);
  }
  try {
    route.handle(service, own, response);
  } catch (const std::exception& error) {
    response = error_response(as_request_error(error), route.form);
    if (response.status >= 500) *note += fmt::format(" error: {}", error.what());
  }
  access.add_cors(request, response);
  const auto end = [&service, &route, start, note, status = response.status](const HttpRequest& ended) {
    const double seconds = seconds_since(start);
    service.metrics.end(route.path, status, seconds);
    log_line(ended, status, seconds, *note);
  };
  if (!response.stream) {
    end(request);
  } else {
    own.body.clear();
    own.header = [](const char*) { return std::string(); };  // the original is gone by then
    response.stream = [stream = std::move(response.stream), end, own = std::move(own)](EventSink& sink) {
      stream(sink);
      end(own);
    };
  }
  return response;
}

}  // namespace upg::serve
