// Errors of requests, and how they look on the wire: in the forms of OpenAI and of Anthropic.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>

#include "http.h"
#include "json_reader.h"

namespace upg::serve {

struct RequestError : std::runtime_error {
  RequestError(int http_status, const std::string& message, std::string field = {}, std::string name = {})
      : std::runtime_error(message), status(http_status), param(std::move(field)), code(std::move(name)) {}
  int status;
  std::string param;        // the field of the request, or empty
  std::string code;         // a word for programs, or empty
  int64_t retry_after = 1;  // seconds, with status 429 and 503
};

enum class ErrorForm { kOpenAi, kAnthropic };

/// Status 500 for what is no fault of the request.
RequestError as_request_error(const std::exception& error);
Json error_json(const RequestError& error, ErrorForm form);
HttpResponse error_response(const RequestError& error, ErrorForm form);

}  // namespace upg::serve
