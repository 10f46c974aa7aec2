// POST /v1/responses, without memory: what was said before comes with the request.
#include <fmt/format.h>

#include <vector>

#include "chat_prompt.h"
#include "constraints.h"
#include "event_stream.h"
#include "generation_fields.h"
#include "generations.h"
#include "limits.h"
#include "routes.h"

namespace upg::serve {
namespace {

Json call_of(const Fields& item) {
  return {{"id", item.required_text("call_id")},
          {"type", "function"},
          {"function", {{"name", item.required_text("name")}, {"arguments", item.required_text("arguments")}}}};
}

std::string output_text(const Fields& item, const std::string& where) {
  const Json* output = item.find("output");
  if (output == nullptr) refuse(where + ".output", fmt::format("{}.output is missing", where));
  if (output->is_string()) return output->get<std::string>();
  if (!output->is_array()) refuse_type(where + ".output", "a string or an array of parts", *output);
  std::string text;
  for (size_t i = 0; i < output->size(); ++i)
    text += Fields((*output)[i], fmt::format("{}.output[{}]", where, i)).required_text("text");
  return text;
}

// One item of the input, as a message or a part of the one before.
void translate(const Json& value, const std::string& where, Json& messages) {
  const Fields item(value, where);
  const std::string type = item.text("type").value_or("message");
  if (type == "reasoning") return;  // it is not shown to the model again
  if (type == "message") {
    const Json* content = item.find("content");
    if (content == nullptr) refuse(where + ".content", fmt::format("{}.content is missing", where));
    messages.push_back({{"role", item.required_text("role")}, {"content", *content}});
  } else if (type == "function_call") {
    if (messages.empty() || messages.back()["role"] != "assistant")
      messages.push_back({{"role", "assistant"}, {"content", ""}});
    Json& calls = messages.back()["tool_calls"];
    if (calls.is_null()) calls = Json::array();
    calls.push_back(call_of(item));
  } else if (type == "function_call_output") {
    messages.push_back(
        {{"role", "tool"}, {"tool_call_id", item.required_text("call_id")}, {"content", output_text(item, where)}});
  } else {
    refuse(where + ".type", fmt::format("{}.type is \"{}\", which this server does not read", where, type));
  }
}

// tools and tool_choice in the form of chats: there the function stands in an object of its own.
Json chat_tools(const Fields& fields) {
  Json body = Json::object();
  if (const Json* tools = fields.array("tools", kMaxTools)) {
    body["tools"] = Json::array();
    for (size_t i = 0; i < tools->size(); ++i) {
      const std::string where = fmt::format("tools[{}]", i);
      const Fields tool((*tools)[i], where);
      const std::string type = tool.required_text("type");
      if (type != "function")
        refuse(where + ".type", fmt::format("{}.type is \"{}\": this server has no tools of its own", where, type));
      Json function = (*tools)[i];
      function.erase("type");
      Json entry = Json::object({{"type", "function"}});
      entry["function"] = std::move(function);
      body["tools"].push_back(std::move(entry));
    }
  }
  if (const Json* choice = fields.find("tool_choice")) {
    body["tool_choice"] = *choice;
    if (choice->is_object()) {
      const std::string name = Fields(*choice, "tool_choice").required_text("name");
      body["tool_choice"] = {{"type", "function"}, {"function", Json::object({{"name", name}})}};
    }
  }
  return body;
}

// The output as items, told as events while they come. `emit` may do nothing.
class OutputWriter {
 public:
  using Emit = std::function<void(const char* type, Json event)>;
  explicit OutputWriter(Emit emit) : emit_(std::move(emit)) {}

  void add(const ToolCallParser::Output& said) {
    if (!said.content.empty()) add_text(said.content);
    for (const ToolCall& call : said.calls) add_call(call);
  }

  void close(const char* status = "completed") {
    if (!open_) return;
    open_ = false;
    const Json part = text_part(text_);
    emit_("response.output_text.done", in_part({{"text", text_}, {"logprobs", Json::array()}}));
    emit_("response.content_part.done", in_part(Json::object({{"part", part}})));
    Json& item = items_.back();
    item["status"] = status;
    item["content"].push_back(part);
    emit_("response.output_item.done", {{"output_index", items_.size() - 1}, {"item", item}});
  }
  const Json& items() const { return items_; }

 private:
  static Json text_part(const std::string& text) {
    return {{"type", "output_text"}, {"text", text}, {"annotations", Json::array()}, {"logprobs", Json::array()}};
  }
  Json in_item(Json rest) const {
    Json all = {{"item_id", items_.back()["id"]}, {"output_index", items_.size() - 1}};
    all.update(rest);
    return all;
  }
  Json in_part(Json rest) const {
    Json all = in_item(Json::object({{"content_index", 0}}));
    all.update(rest);
    return all;
  }

  void add_text(const std::string& text) {
    if (!open_) {
      open_ = true;
      text_.clear();
      items_.push_back({{"id", make_id("msg_")},
                        {"type", "message"},
                        {"status", "in_progress"},
                        {"role", "assistant"},
                        {"content", Json::array()}});
      emit_("response.output_item.added", {{"output_index", items_.size() - 1}, {"item", items_.back()}});
      emit_("response.content_part.added", in_part(Json::object({{"part", text_part("")}})));
    }
    text_ += text;
    emit_("response.output_text.delta", in_part({{"delta", text}, {"logprobs", Json::array()}}));
  }

  void add_call(const ToolCall& call) {
    close();
    items_.push_back({{"id", make_id("fc_")},
                      {"type", "function_call"},
                      {"status", "in_progress"},
                      {"call_id", make_id("call_")},
                      {"name", call.name},
                      {"arguments", ""}});
    emit_("response.output_item.added", {{"output_index", items_.size() - 1}, {"item", items_.back()}});
    emit_("response.function_call_arguments.delta", in_item(Json::object({{"delta", call.arguments}})));
    emit_("response.function_call_arguments.done", in_item({{"name", call.name}, {"arguments", call.arguments}}));
    items_.back()["arguments"] = call.arguments;
    items_.back()["status"] = "completed";
    emit_("response.output_item.done", {{"output_index", items_.size() - 1}, {"item", items_.back()}});
  }

  Emit emit_;
  Json items_ = Json::array();
  std::string text_;
  bool open_ = false;
};

struct Response {
  std::shared_ptr<ServedModel> model;
  std::string id = make_id("resp_");
  int64_t created = unix_time();
  bool stream = false;
  Json echoed = Json::object();  // fields that come back as they were sent
  ChatPrompt prompt;
  std::unique_ptr<Generations> generations;
  Usage usage;
  bool cut = false;  // at max_output_tokens or the end of the context

  Json json(const char* status, const Json& output) const {
    Json all = {{"id", id},
                {"object", "response"},
                {"created_at", created},
                {"status", status},
                {"background", false},
                {"error", nullptr},
                {"incomplete_details", cut ? Json::object({{"reason", "max_output_tokens"}}) : Json(nullptr)},
                {"model", model->name}};
    all["output"] = output;
    all.update(echoed);
    all["previous_response_id"] = nullptr;
    all["store"] = false;
    all["usage"] = nullptr;
    if (std::string_view(status) != "in_progress")
      all["usage"] = {{"input_tokens", usage.prompt},
                      {"input_tokens_details", Json::object({{"cached_tokens", usage.cached}})},
                      {"output_tokens", usage.generated},
                      {"output_tokens_details", Json::object({{"reasoning_tokens", 0}})},
                      {"total_tokens", usage.prompt + usage.generated}};
    return all;
  }
  const char* status() const { return cut ? "incomplete" : "completed"; }
};

// What a response repeats of its request, and what stands there where the request has nothing.
Json echoed_fields(const Fields& fields) {
  Json echoed = {{"instructions", nullptr},    {"max_output_tokens", nullptr},
                 {"metadata", Json::object()}, {"parallel_tool_calls", true},
                 {"temperature", nullptr},     {"tool_choice", "auto"},
                 {"tools", Json::array()},     {"top_p", nullptr},
                 {"truncation", "disabled"},   {"text", Json::object({{"format", Json::object({{"type", "text"}})}})}};
  for (auto& [key, value] : echoed.items())
    if (const Json* given = fields.find(key.c_str())) value = *given;
  return echoed;
}

ChatRequest read_input(const Fields& fields) {
  ChatRequest chat;
  Json messages = Json::array();
  if (const auto instructions = fields.text("instructions"))
    messages.push_back({{"role", "system"}, {"content", *instructions}});
  const Json* input = fields.find("input");
  if (input == nullptr) refuse("input", "input is missing: it must be a string or an array");
  if (input->is_string()) {
    messages.push_back({{"role", "user"}, {"content", *input}});
  } else {
    const Json* items = fields.array("input", kMaxMessages);
    for (size_t i = 0; i < items->size(); ++i) translate((*items)[i], fmt::format("input[{}]", i), messages);
  }
  chat.messages = normal_messages(messages, "input");
  const Json tools = chat_tools(fields);
  read_tools(Fields(tools), chat);
  return chat;
}

std::shared_ptr<Response> read_response(const Service& service, const HttpRequest& request) {
  const Json body = parse_object(request.body);
  const Fields fields(body);
  auto response = std::make_shared<Response>();
  response->model = read_model_with_room(service, request, fields);
  for (const char* name : {"previous_response_id", "conversation", "prompt"})
    if (fields.find(name) != nullptr)
      refuse(name, fmt::format("{} is not supported: this server keeps no responses; send the whole input", name));
  if (fields.flag("background").value_or(false)) refuse("background", "background is not supported: it must be false");
  response->stream = fields.flag("stream").value_or(false);
  fields.object("metadata");
  fields.flag("parallel_tool_calls");
  fields.text("truncation");
  response->echoed = echoed_fields(fields);
  response->prompt = make_prompt(*response->model, read_input(fields), "input");
  GenerationRequest generation = chat_generation(*response->model, response->prompt);
  generation.client = request.client;
  read_sampling(fields, generation);
  generation.options.stop = response->model->ends.texts;
  if (const auto most = fields.integer("max_output_tokens", 1, INT32_MAX)) generation.options.max_tokens = *most;
  if (const Json* text = fields.object("text"))
    generation.options.grammar = read_form(*response->model, Fields(*text, "text"), responses_forms());
  if (!response->prompt.prefix.empty()) generation.options.grammar = call_grammar(*response->model, response->prompt);
  response->generations = std::make_unique<Generations>(
      response->model, std::vector<GenerationRequest>{std::move(generation)}, request.gone);
  return response;
}

bool generate(Response& response, OutputWriter& writer, const std::function<bool()>& alive) {
  ChatAnswer answer(*response.model, response.prompt);
  return response.generations->run({[&](size_t, const GenerationPiece& piece) { writer.add(answer.push(piece)); },
                                    [&](size_t, const Generation& generation) {
                                      writer.add(answer.finish());
                                      response.usage.add(generation, /*counts_prompt=*/true);
                                      response.cut = generation.result().finish == FinishReason::kLength;
                                      writer.close(response.status());
                                    },
                                    alive});
}

void answer_stream(Response& response, Events& events) {
  uint64_t number = 0;
  const auto emit = [&](const char* type, const Json& event) {
    Json all = {{"type", type}, {"sequence_number", number++}};
    all.update(event);
    events.event(type, all);
  };
  const auto whole = [&](const char* type, const char* status, const Json& output) {
    emit(type, Json::object({{"response", response.json(status, output)}}));
  };
  whole("response.created", "in_progress", Json::array());
  whole("response.in_progress", "in_progress", Json::array());
  OutputWriter writer(emit);
  if (!generate(response, writer, [&] { return events.alive(); })) return;
  whole(response.cut ? "response.incomplete" : "response.completed", response.status(), writer.items());
}

}  // namespace

void responses(Service& service, const HttpRequest& request, HttpResponse& http) {
  std::shared_ptr<Response> response = read_response(service, request);
  if (!response->stream) {
    OutputWriter writer([](const char*, const Json&) {});
    if (!generate(*response, writer, [&] { return !request.gone(); })) throw RequestError(499, "the client has left");
    http.body = to_text(response->json(response->status(), writer.items()));
    *http.note = response->usage.note(*response->model);
    return;
  }
  stream_events(request, http, ErrorForm::kOpenAi, [response, note = http.note](Events& events) {
    answer_stream(*response, events);
    *note = response->usage.note(*response->model);
  });
}

}  // namespace upg::serve
