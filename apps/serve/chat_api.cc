// POST /v1/chat/completions.
#include <fmt/format.h>

#include <vector>

#include "chat_prompt.h"
#include "constraints.h"
#include "event_stream.h"
#include "generation_fields.h"
#include "generations.h"
#include "limits.h"
#include "logprobs.h"
#include "routes.h"

namespace upg::serve {
namespace {

struct Choice {
  explicit Choice(ChatAnswer a) : answer(std::move(a)) {}
  ChatAnswer answer;
  std::string content;
  Json calls = Json::array(), logprobs = Json::array();
  std::string finish;
};

struct Chat {
  std::shared_ptr<ServedModel> model;
  std::string id = make_id("chatcmpl-");
  int64_t created = unix_time();
  bool stream = false, include_usage = false, logprobs = false;
  uint32_t top = 0;
  ChatPrompt prompt;
  std::vector<Choice> choices;
  std::unique_ptr<Generations> generations;
  Usage usage;

  Json head(const char* object) const {
    return {{"id", id},
            {"object", object},
            {"created", created},
            {"model", model->name},
            {"system_fingerprint", "upg-" UPG_VERSION}};
  }
};

Json call_json(const ToolCall& call) {
  return {{"id", make_id("call_")},
          {"type", "function"},
          {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

std::shared_ptr<Chat> read_chat(const Service& service, const HttpRequest& request) {
  const Json body = parse_object(request.body);
  const Fields fields(body);
  auto chat = std::make_shared<Chat>();
  chat->model = read_model_with_room(service, request, fields);
  ChatRequest asked;
  const Json* messages = fields.array("messages", kMaxMessages);
  if (messages == nullptr) refuse("messages", "messages is missing: it must be an array");
  asked.messages = normal_messages(*messages, "messages");
  read_tools(fields, asked);
  if (const Json* variables = fields.object("chat_template_kwargs")) asked.variables = *variables;
  chat->stream = fields.flag("stream").value_or(false);
  if (const Json* options = fields.object("stream_options"))
    chat->include_usage = Fields(*options, "stream_options").flag("include_usage").value_or(false);
  chat->logprobs = fields.flag("logprobs").value_or(false);
  chat->top = static_cast<uint32_t>(fields.integer("top_logprobs", 0, kMaxTopLogprobs).value_or(0));
  if (chat->top > 0 && !chat->logprobs) refuse("top_logprobs", "top_logprobs needs logprobs to be true");
  const auto n = static_cast<uint64_t>(fields.integer("n", 1, kMaxChoices).value_or(1));

  chat->prompt = make_prompt(*chat->model, asked, "messages");
  GenerationRequest generation = chat_generation(*chat->model, chat->prompt);
  generation.client = request.client;
  read_sampling(fields, generation);
  generation.options.stop = read_stops(fields, "stop");
  generation.options.stop.insert(generation.options.stop.end(), chat->model->ends.texts.begin(),
                                 chat->model->ends.texts.end());
  for (const char* name : {"max_tokens", "max_completion_tokens"})
    if (const auto most = fields.integer(name, 1, INT32_MAX)) generation.options.max_tokens = *most;
  generation.logprobs = chat->logprobs;
  generation.top_logprobs = chat->top;
  generation.options.grammar = chat->prompt.prefix.empty() ? read_form(*chat->model, fields, openai_forms())
                                                           : call_grammar(*chat->model, chat->prompt);
  std::vector<GenerationRequest> all = choices_of(generation, n);
  for (uint64_t i = 0; i < n; ++i) chat->choices.emplace_back(ChatAnswer(*chat->model, chat->prompt));
  chat->generations = std::make_unique<Generations>(chat->model, std::move(all), request.gone);
  return chat;
}

void answer_whole(Chat& chat, const HttpRequest& request, HttpResponse& response) {
  const auto take = [&](Choice& choice, const ToolCallParser::Output& said) {
    choice.content += said.content;
    for (const ToolCall& call : said.calls) choice.calls.push_back(call_json(call));
  };
  const bool all =
      chat.generations->run({[&](size_t index, const GenerationPiece& piece) {
                               Choice& choice = chat.choices[index];
                               take(choice, choice.answer.push(piece));
                               for (Json& entry : chat_logprobs(*chat.model->engine, piece.logprobs, chat.top))
                                 choice.logprobs.push_back(std::move(entry));
                             },
                             [&](size_t index, const Generation& generation) {
                               Choice& choice = chat.choices[index];
                               take(choice, choice.answer.finish());
                               choice.finish =
                                   choice.answer.called() ? "tool_calls" : finish_name(generation.result().finish);
                               chat.usage.add(generation, index == 0);
                             },
                             [&] { return !request.gone(); }});
  if (!all) throw RequestError(499, "the client has left");
  Json json = chat.head("chat.completion");
  json["choices"] = Json::array();
  for (size_t i = 0; i < chat.choices.size(); ++i) {
    Choice& choice = chat.choices[i];
    Json message = {{"role", "assistant"}, {"content", choice.content}, {"refusal", nullptr}};
    if (!choice.calls.empty()) {
      if (choice.content.empty()) message["content"] = nullptr;
      message["tool_calls"] = std::move(choice.calls);
    }
    Json logprobs = chat.logprobs ? Json{{"content", std::move(choice.logprobs)}, {"refusal", nullptr}} : Json(nullptr);
    json["choices"].push_back({{"index", i},
                               {"message", std::move(message)},
                               {"logprobs", std::move(logprobs)},
                               {"finish_reason", choice.finish}});
  }
  json["usage"] = chat.usage.openai();
  response.body = to_text(json);
}

void answer_stream(Chat& chat, Events& events) {
  const auto chunk = [&](size_t index, Json delta, Json logprobs, Json finish) {
    Json json = chat.head("chat.completion.chunk");
    json["choices"] = Json::array();
    json["choices"].push_back({{"index", index},
                               {"delta", std::move(delta)},
                               {"logprobs", std::move(logprobs)},
                               {"finish_reason", std::move(finish)}});
    if (chat.include_usage) json["usage"] = nullptr;
    events.data(json);
  };
  const auto tell = [&](size_t index, const ToolCallParser::Output& said, const std::vector<TokenLogprob>& logprobs) {
    Choice& choice = chat.choices[index];
    Json list = nullptr;
    if (chat.logprobs && !logprobs.empty())
      list = {{"content", chat_logprobs(*chat.model->engine, logprobs, chat.top)}, {"refusal", nullptr}};
    if (!said.content.empty() || !list.is_null())
      chunk(index, Json::object({{"content", said.content}}), std::move(list), nullptr);
    for (const ToolCall& call : said.calls) {
      Json begun = call_json(call);
      const size_t number = choice.calls.size();
      choice.calls.push_back(number);
      begun["function"]["arguments"] = "";
      Json first = Json::object({{"index", number}});
      first.update(begun);
      chunk(index, Json::object({{"tool_calls", Json::array({std::move(first)})}}), nullptr, nullptr);
      const Json rest = {{"index", number}, {"function", Json::object({{"arguments", call.arguments}})}};
      chunk(index, Json::object({{"tool_calls", Json::array({rest})}}), nullptr, nullptr);
    }
  };
  for (size_t i = 0; i < chat.choices.size(); ++i) chunk(i, {{"role", "assistant"}, {"content", ""}}, nullptr, nullptr);
  const bool all =
      chat.generations->run({[&](size_t index, const GenerationPiece& piece) {
                               tell(index, chat.choices[index].answer.push(piece), piece.logprobs);
                             },
                             [&](size_t index, const Generation& generation) {
                               ChatAnswer& answer = chat.choices[index].answer;
                               tell(index, answer.finish(), {});
                               chunk(index, Json::object(), nullptr,
                                     answer.called() ? "tool_calls" : finish_name(generation.result().finish));
                               chat.usage.add(generation, index == 0);
                             },
                             [&] { return events.alive(); }});
  if (!all) return;
  if (chat.include_usage) {
    Json json = chat.head("chat.completion.chunk");
    json["choices"] = Json::array();
    json["usage"] = chat.usage.openai();
    events.data(json);
  }
  events.done();
}

}  // namespace

void chat_completions(Service& service, const HttpRequest& request, HttpResponse& response) {
  std::shared_ptr<Chat> chat = read_chat(service, request);
  if (!chat->stream) {
    answer_whole(*chat, request, response);
    *response.note = chat->usage.note(*chat->model);
    return;
  }
  stream_events(request, response, ErrorForm::kOpenAi, [chat, note = response.note](Events& events) {
    answer_stream(*chat, events);
    *note = chat->usage.note(*chat->model);
  });
}

}  // namespace upg::serve
