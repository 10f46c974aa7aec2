// POST /v1/completions: texts continued, and the log-probabilities of given ones, as evaluation programs ask for them.
#include <fmt/format.h>

#include <vector>

#include "constraints.h"
#include "event_stream.h"
#include "generation_fields.h"
#include "generations.h"
#include "limits.h"
#include "logprobs.h"
#include "prompts.h"
#include "routes.h"

namespace upg::serve {
namespace {

struct Choice {
  std::string text;
  std::vector<int32_t> prompt;
  CompletionLogprobs logprobs;
  bool began = false;
};

struct Completion {
  std::shared_ptr<ServedModel> model;
  std::string id = make_id("cmpl-");
  int64_t created = unix_time();
  bool stream = false, include_usage = false, echo = false, logprobs = false;
  uint64_t n = 1;
  std::vector<Choice> choices;
  std::unique_ptr<Generations> generations;
  Usage usage;

  Json head() const {
    return {{"id", id},
            {"object", "text_completion"},
            {"created", created},
            {"model", model->name},
            {"system_fingerprint", "upg-" UPG_VERSION}};
  }

  // What a piece adds to a choice: the prompt comes first where it is wanted too.
  std::string take(size_t index, const GenerationPiece& piece) {
    Choice& choice = choices[index];
    std::string text;
    if (echo && !choice.began) {
      text = model->engine->detokenize(choice.prompt);
      if (logprobs) choice.logprobs.add_first(choice.prompt.front());
    }
    choice.began = true;
    if (logprobs && echo) choice.logprobs.add(piece.prompt_logprobs);
    if (logprobs) choice.logprobs.add(piece.logprobs);
    return text + piece.text;
  }
};

std::shared_ptr<Completion> read_completion(const Service& service, const HttpRequest& request) {
  const Json body = parse_object(request.body);
  const Fields fields(body);
  auto completion = std::make_shared<Completion>();
  Completion& c = *completion;
  c.model = read_model_with_room(service, request, fields);
  if (!fields.text("suffix").value_or("").empty())
    refuse("suffix", "suffix is not supported: this server continues texts and does not fill gaps");
  c.stream = fields.flag("stream").value_or(false);
  if (const Json* options = fields.object("stream_options"))
    c.include_usage = Fields(*options, "stream_options").flag("include_usage").value_or(false);
  c.echo = fields.flag("echo").value_or(false);
  c.n = static_cast<uint64_t>(fields.integer("n", 1, kMaxChoices).value_or(1));
  const auto best_of = static_cast<uint64_t>(fields.integer("best_of", 1, kMaxChoices).value_or(1));
  if (best_of > c.n) refuse("best_of", "best_of is not supported: ask for n choices");
  const auto top = fields.integer("logprobs", 0, kMaxTopLogprobs);
  c.logprobs = top.has_value();

  GenerationRequest generation;
  generation.client = request.client;
  generation.options.sampling = c.model->engine->default_sampling();
  read_sampling(fields, generation);
  generation.options.stop = read_stops(fields, "stop");
  generation.options.max_tokens = static_cast<uint64_t>(fields.integer("max_tokens", 0, INT32_MAX).value_or(16));
  generation.logprobs = c.logprobs;
  generation.top_logprobs = static_cast<uint32_t>(top.value_or(0));
  generation.prompt_logprobs = c.logprobs && c.echo;
  const auto prompts = read_prompts(*c.model, fields, "prompt");
  if (prompts.size() * c.n > kMaxSequences)
    refuse("n", fmt::format("{} prompts and n = {} are more than {} choices", prompts.size(), c.n, kMaxSequences));
  generation.options.grammar = read_form(*c.model, fields, openai_forms());
  std::vector<GenerationRequest> all;
  for (const std::vector<int32_t>& prompt : prompts) {
    generation.prompt = prompt;
    for (GenerationRequest& one : choices_of(generation, c.n)) {
      all.push_back(std::move(one));
      c.choices.push_back({{}, prompt, CompletionLogprobs(*c.model->engine, generation.top_logprobs)});
    }
  }
  c.generations = std::make_unique<Generations>(c.model, std::move(all), request.gone);
  return completion;
}

Json choice_json(size_t index, const std::string& text, Json logprobs, Json finish) {
  return {{"index", index}, {"text", text}, {"logprobs", std::move(logprobs)}, {"finish_reason", std::move(finish)}};
}

void answer_whole(Completion& c, const HttpRequest& request, HttpResponse& response) {
  std::vector<Json> finished(c.choices.size());
  const bool all = c.generations->run(
      {[&](size_t index, const GenerationPiece& piece) { c.choices[index].text += c.take(index, piece); },
       [&](size_t index, const Generation& generation) {
         Choice& choice = c.choices[index];
         if (!choice.began) choice.text += c.take(index, {});
         finished[index] = choice_json(index, choice.text, c.logprobs ? choice.logprobs.take() : Json(nullptr),
                                       finish_name(generation.result().finish));
         c.usage.add(generation, index % c.n == 0);
       },
       [&] { return !request.gone(); }});
  if (!all) throw RequestError(499, "the client has left");
  Json json = c.head();
  json["choices"] = std::move(finished);
  json["usage"] = c.usage.openai();
  response.body = to_text(json);
}

void answer_stream(Completion& c, Events& events) {
  const auto chunk = [&](Json choice) {
    Json json = c.head();
    json["choices"] = Json::array();
    json["choices"].push_back(std::move(choice));
    if (c.include_usage) json["usage"] = nullptr;
    events.data(json);
  };
  const auto take = [&](size_t index, const GenerationPiece& piece) {
    const std::string text = c.take(index, piece);
    Json logprobs = c.logprobs ? c.choices[index].logprobs.take() : Json(nullptr);
    if (!text.empty() || c.logprobs) chunk(choice_json(index, text, std::move(logprobs), nullptr));
  };
  const bool all =
      c.generations->run({take,
                          [&](size_t index, const Generation& generation) {
                            if (!c.choices[index].began) take(index, {});
                            chunk(choice_json(index, "", nullptr, finish_name(generation.result().finish)));
                            c.usage.add(generation, index % c.n == 0);
                          },
                          [&] { return events.alive(); }});
  if (!all) return;
  if (c.include_usage) {
    Json json = c.head();
    json["choices"] = Json::array();
    json["usage"] = c.usage.openai();
    events.data(json);
  }
  events.done();
}

}  // namespace

void completions(Service& service, const HttpRequest& request, HttpResponse& response) {
  std::shared_ptr<Completion> completion = read_completion(service, request);
  if (!completion->stream) {
    answer_whole(*completion, request, response);
    *response.note = completion->usage.note(*completion->model);
    return;
  }
  stream_events(request, response, ErrorForm::kOpenAi, [completion, note = response.note](Events& events) {
    answer_stream(*completion, events);
    *note = completion->usage.note(*completion->model);
  });
}

}  // namespace upg::serve
