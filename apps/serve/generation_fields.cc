#include "generation_fields.h"

#include <fmt/format.h>

#include <chrono>
#include <random>

#include "errors.h"
#include "limits.h"

namespace upg::serve {
namespace {

uint64_t random_bits() {
  thread_local std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

struct NumberField {
  const char* name;
  float SamplingOptions::*value;
  double min, max;
};

constexpr NumberField kNumbers[] = {
    {"temperature", &SamplingOptions::temperature, 0, 100},
    {"top_p", &SamplingOptions::top_p, 0, 1},
    {"min_p", &SamplingOptions::min_p, 0, 1},
    {"presence_penalty", &SamplingOptions::presence_penalty, -2, 2},
    {"frequency_penalty", &SamplingOptions::frequency_penalty, -2, 2},
    {"repetition_penalty", &SamplingOptions::repetition_penalty, 0.01, 100},
};

void read_bias(const Fields& fields, SamplingOptions& sampling) {
  const Json* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  if (bias->size() > kMaxBiasEntries)
    refuse("logit_bias", fmt::format("logit_bias has {} entries, {} are the limit", bias->size(), kMaxBiasEntries));
  const Fields entries(*bias, "logit_bias");
  for (const auto& [key, value] : bias->items()) {
    const std::string name = fmt::format("logit_bias.{}", key);
    if (key.empty() || key.size() > 9 || key.find_first_not_of("0123456789") != std::string::npos)
      refuse("logit_bias", fmt::format("{}: the keys must be token ids", name));
    if (const auto number = entries.number(key.c_str(), -100, 100))
      sampling.logit_bias[std::stoi(key)] = static_cast<float>(*number);
  }
}

}  // namespace

std::shared_ptr<ServedModel> read_model(const Service& service, const Fields& fields) {
  const std::optional<std::string> name = fields.text("model");
  if (!name && !service.models->any_name()) refuse("model", "model is missing: GET /v1/models lists the names");
  return service.models->find(name.value_or(""));
}

std::shared_ptr<ServedModel> read_model_with_room(const Service& service, const HttpRequest& request,
                                                  const Fields& fields) {
  std::shared_ptr<ServedModel> model = read_model(service, fields);
  model->scheduler->check_room(request.body.size() / kBytesAToken);
  return model;
}

void read_sampling(const Fields& fields, GenerationRequest& request) {
  SamplingOptions& sampling = request.options.sampling;
  for (const NumberField& field : kNumbers)
    if (const auto number = fields.number(field.name, field.min, field.max))
      sampling.*field.value = static_cast<float>(*number);
  if (sampling.top_p == 0) sampling.top_p = 1e-6f;  // the likeliest token alone, as others have it
  if (const auto top_k = fields.integer("top_k", -1, INT32_MAX))
    sampling.top_k = *top_k < 0 ? 0 : static_cast<uint32_t>(*top_k);
  read_bias(fields, sampling);
  const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX);
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : random_bits();
  request.options.ignore_eos = fields.flag("ignore_eos").value_or(false);
}

std::vector<std::string> read_stops(const Fields& fields, const char* name) {
  const Json* value = fields.find(name);
  if (value == nullptr) return {};
  const Json list = value->is_string() ? Json::array({*value}) : *value;
  if (!list.is_array()) refuse_type(name, "a string or an array of strings", *value);
  if (list.size() > kMaxStops)
    refuse(name, fmt::format("{} has {} strings, {} are the limit", name, list.size(), kMaxStops));
  std::vector<std::string> stops;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = fmt::format("{}[{}]", name, i);
    if (!list[i].is_string()) refuse_type(where, "a string", list[i]);
    stops.push_back(list[i].get<std::string>());
    if (stops.back().empty()) refuse(name, fmt::format("{} is empty: it would stop everything", where));
    if (stops.back().size() > kMaxStopBytes)
      refuse(name, fmt::format("{} has {} bytes, {} are the limit", where, stops.back().size(), kMaxStopBytes));
  }
  return stops;
}

void check_length(const ServedModel& model, const std::vector<int32_t>& prompt, const std::string& field) {
  if (prompt.empty()) refuse(field, fmt::format("{} has no tokens", field));
  if (prompt.size() <= model.scheduler->context()) return;
  throw RequestError(400,
                     fmt::format("{} has {} tokens and the context holds {}: shorten it, or start the server with a "
                                 "larger --context",
                                 field, prompt.size(), model.scheduler->context()),
                     field, "context_length_exceeded");
}

std::vector<GenerationRequest> choices_of(const GenerationRequest& request, uint64_t n) {
  std::vector<GenerationRequest> all(n, request);
  for (uint64_t i = 0; i < n; ++i) all[i].options.sampling.seed += i;
  return all;
}

void Usage::add(const Generation& generation, bool counts_prompt) {
  if (counts_prompt) {
    prompt += generation.result().prompt_tokens;
    cached += generation.cached_tokens();
  }
  generated += generation.result().tokens.size();
}

Json Usage::openai() const {
  return {{"prompt_tokens", prompt},
          {"completion_tokens", generated},
          {"total_tokens", prompt + generated},
          {"prompt_tokens_details", Json::object({{"cached_tokens", cached}})}};
}

std::string Usage::note(const ServedModel& model) const {
  return fmt::format("model={} prompt={} cached={} generated={}", model.name, prompt, cached, generated);
}

std::string met_stop(const Engine& engine, const GenerateResult& result, const std::vector<std::string>& stops) {
  if (result.finish != FinishReason::kStop) return {};
  const std::string all = engine.detokenize(result.tokens);
  if (!all.starts_with(result.text)) return {};
  const std::string_view rest = std::string_view(all).substr(result.text.size());
  for (const std::string& stop : stops)
    if (rest.starts_with(stop)) return stop;
  return {};
}

const char* finish_name(FinishReason reason) { return reason == FinishReason::kLength ? "length" : "stop"; }

int64_t unix_time() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string make_id(std::string_view prefix) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789";
  std::string id(prefix);
  for (int i = 0; i < 24; ++i) id += kLetters[random_bits() % kLetters.size()];
  return id;
}

}  // namespace upg::serve
