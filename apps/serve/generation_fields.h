// What the routes that generate have in common: fields of the request, usage, reasons for the end.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "http.h"
#include "json_reader.h"
#include "models.h"
#include "service.h"
#include "upg/scheduler.h"

namespace upg::serve {

/// Of the model that the field "model" names; a server with one model does without.
std::shared_ptr<ServedModel> read_model(const Service& service, const Fields& fields);
/// The same for a request to generate, whose fields these are. Throws BusyError where the model has no room for a
/// prompt of about the size of its body: nothing else of it need be read then.
std::shared_ptr<ServedModel> read_model_with_room(const Service& service, const HttpRequest& request,
                                                  const Fields& fields);

/// temperature ... logit_bias and seed, over the model's own settings. Without a seed each request gets another.
void read_sampling(const Fields& fields, GenerationRequest& request);
/// A string or an array of strings, in the field `name`.
std::vector<std::string> read_stops(const Fields& fields, const char* name);
/// Refuses with both numbers what does not fit.
void check_length(const ServedModel& model, const std::vector<int32_t>& prompt, const std::string& field);
/// The same request so often, with seeds one after the other.
std::vector<GenerationRequest> choices_of(const GenerationRequest& request, uint64_t n);

/// Counts of one request, over all that it generates.
struct Usage {
  uint64_t prompt = 0, cached = 0, generated = 0;
  /// `counts_prompt`: false for another choice of the same prompt.
  void add(const Generation& generation, bool counts_prompt);
  Json openai() const;
  std::string note(const ServedModel& model) const;  // for the log
};

/// The one of `stops` that ended the generation, or empty.
std::string met_stop(const Engine& engine, const GenerateResult& result, const std::vector<std::string>& stops);
const char* finish_name(FinishReason reason);
int64_t unix_time();
/// "chatcmpl-" and 24 random letters and digits.
std::string make_id(std::string_view prefix);

}  // namespace upg::serve
