// THE list of routes: method, path, who answers. Around them: access, errors, counting and one line of log for each.
#pragma once

#include <optional>
#include <span>

#include "access.h"
#include "errors.h"
#include "http.h"
#include "service.h"

namespace upg::serve {

struct Route {
  const char* method;
  const char* path;  // a star at its end takes the rest of the path as HttpRequest::parameter
  void (*handle)(Service& service, const HttpRequest& request, HttpResponse& response);
  ErrorForm form = ErrorForm::kOpenAi;
  bool open = false;  // without a key, and while the server shuts down
};

std::span<const Route> routes();

/// Refuses what must not go on: unknown routes, foreign hosts and origins, missing keys. Answers CORS preflights.
std::optional<HttpResponse> check_request(Service& service, const Access& access, const HttpRequest& request);
HttpResponse handle_request(Service& service, const Access& access, const HttpRequest& request);
HttpResponse failed_request(const Access& access, const HttpRequest& request, const RequestError& error);

// The handlers, each in the file of its name.
void chat_completions(Service& service, const HttpRequest& request, HttpResponse& response);
void completions(Service& service, const HttpRequest& request, HttpResponse& response);
void responses(Service& service, const HttpRequest& request, HttpResponse& response);
void messages(Service& service, const HttpRequest& request, HttpResponse& response);
void count_message_tokens(Service& service, const HttpRequest& request, HttpResponse& response);
void list_models(Service& service, const HttpRequest& request, HttpResponse& response);
void show_model(Service& service, const HttpRequest& request, HttpResponse& response);
void embeddings(Service& service, const HttpRequest& request, HttpResponse& response);
void tokenize_text(Service& service, const HttpRequest& request, HttpResponse& response);
void detokenize_tokens(Service& service, const HttpRequest& request, HttpResponse& response);
void show_health(Service& service, const HttpRequest& request, HttpResponse& response);
void show_metrics(Service& service, const HttpRequest& request, HttpResponse& response);
void show_openapi(Service& service, const HttpRequest& request, HttpResponse& response);
void show_page(Service& service, const HttpRequest& request, HttpResponse& response);

}  // namespace upg::serve
