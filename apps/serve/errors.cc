#include "errors.h"

#include <new>

#include "upg/scheduler.h"

namespace upg::serve {
namespace {

struct StatusRow {
  int status;
  const char* openai;
  const char* anthropic;
};

constexpr StatusRow kStatuses[] = {
    {400, "invalid_request_error", "invalid_request_error"},
    {401, "authentication_error", "authentication_error"},
    {403, "permission_error", "permission_error"},
    {404, "not_found_error", "not_found_error"},
    {405, "invalid_request_error", "invalid_request_error"},
    {408, "invalid_request_error", "invalid_request_error"},
    {411, "invalid_request_error", "invalid_request_error"},
    {413, "invalid_request_error", "request_too_large"},
    {415, "invalid_request_error", "invalid_request_error"},
    {429, "rate_limit_error", "rate_limit_error"},
    {503, "server_error", "overloaded_error"},
    {500, "server_error", "api_error"},  // and all others
};

const StatusRow& row_of(int status) {
  for (const StatusRow& row : kStatuses)
    if (row.status == status) return row;
  return *std::rbegin(kStatuses);
}

struct CodeRow {
  ErrorCode code;
  int status;
  const char* name;
};

constexpr CodeRow kCodes[] = {
    {ErrorCode::kInvalidArgument, 400, ""}, {ErrorCode::kUnsupported, 400, "unsupported"},
    {ErrorCode::kNotFound, 400, ""},        {ErrorCode::kBusy, 503, "shutting_down"},
    {ErrorCode::kOutOfMemory, 503, ""},     {ErrorCode::kCancelled, 503, "shutting_down"},
};

}  // namespace

RequestError as_request_error(const std::exception& error) {
  if (const auto* request = dynamic_cast<const RequestError*>(&error)) return *request;
  if (const auto* busy = dynamic_cast<const BusyError*>(&error)) {
    RequestError refused(429, busy->what(), {}, "busy");
    refused.retry_after = busy->retry_after().count();
    return refused;
  }
  if (const auto* own = dynamic_cast<const Error*>(&error))
    for (const CodeRow& row : kCodes)
      if (row.code == own->code()) return RequestError(row.status, own->what(), {}, row.name);
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr)
    return RequestError(503, "the server has no memory left for this request", {}, "out_of_memory");
  return RequestError(500, error.what());
}

Json error_json(const RequestError& error, ErrorForm form) {
  const StatusRow& row = row_of(error.status);
  const auto text_or_null = [](const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); };
  if (form == ErrorForm::kAnthropic)
    return {{"type", "error"}, {"error", {{"type", row.anthropic}, {"message", error.what()}}}};
  return {{"error",
           {{"message", error.what()},
            {"type", row.openai},
            {"param", text_or_null(error.param)},
            {"code", text_or_null(error.code)}}}};
}

HttpResponse error_response(const RequestError& error, ErrorForm form) {
  HttpResponse response;
  response.status = error.status;
  response.body = to_text(error_json(error, form));
  if (error.status == 429 || error.status == 503)
    response.headers.emplace_back("Retry-After", std::to_string(error.retry_after));
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace upg::serve
