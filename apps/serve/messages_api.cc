// POST /v1/messages and /v1/messages/count_tokens, in the form of Anthropic's API.
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

// The text of content that is a string or an array of text blocks.
std::string plain_text(const Json& content, const std::string& where) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) refuse_type(where, "a string or an array of blocks", content);
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string name = fmt::format("{}[{}]", where, i);
    const Fields block(content[i], name);
    const std::string type = block.required_text("type");
    if (type != "text") refuse(name, fmt::format("{} is of type \"{}\": this server reads text only", name, type));
    text += (text.empty() ? "" : "\n") + block.required_text("text");
  }
  return text;
}

// One message of Anthropic's as one or more of OpenAI's: results of tools stand alone there.
void translate(const Json& message, const std::string& where, Json& out) {
  const Fields fields(message, where);
  const std::string role = fields.required_text("role");
  if (role != "user" && role != "assistant")
    refuse(where + ".role", fmt::format("{}.role is \"{}\", must be user or assistant", where, role));
  const Json* content = fields.find("content");
  if (content == nullptr) refuse(where + ".content", fmt::format("{}.content is missing", where));
  if (!content->is_array()) {
    out.push_back({{"role", role}, {"content", plain_text(*content, where + ".content")}});
    return;
  }
  std::string text;
  bool any_text = false;
  Json calls = Json::array();
  for (size_t i = 0; i < content->size(); ++i) {
    const std::string name = fmt::format("{}.content[{}]", where, i);
    const Fields block((*content)[i], name);
    const std::string type = block.required_text("type");
    if (type == "text") {
      text += (any_text ? "\n" : "") + block.required_text("text");
      any_text = true;
    } else if (type == "tool_use" && role == "assistant") {
      const Json* input = block.object("input");
      calls.push_back(
          {{"id", block.required_text("id")},
           {"type", "function"},
           {"function", {{"name", block.required_text("name")}, {"arguments", input ? *input : Json::object()}}}});
    } else if (type == "tool_result" && role == "user") {
      const Json* result = block.find("content");
      out.push_back({{"role", "tool"},
                     {"tool_call_id", block.required_text("tool_use_id")},
                     {"content", result ? plain_text(*result, name + ".content") : ""}});
    } else if (type != "thinking" && type != "redacted_thinking") {
      refuse(name, fmt::format("{} is of type \"{}\", which this server does not read from the {}", name, type, role));
    }
  }
  if (!any_text && calls.empty() && role == "user" && !content->empty()) return;  // results alone
  Json whole = {{"role", role}, {"content", text}};
  if (!calls.empty()) whole["tool_calls"] = std::move(calls);
  out.push_back(std::move(whole));
}

void read_anthropic_tools(const Fields& fields, ChatRequest& chat) {
  if (const Json* tools = fields.array("tools", kMaxTools))
    for (size_t i = 0; i < tools->size(); ++i) {
      const std::string where = fmt::format("tools[{}]", i);
      const Fields tool((*tools)[i], where);
      const std::string type = tool.text("type").value_or("custom");
      if (type != "custom")
        refuse(where + ".type", fmt::format("{}.type is \"{}\": this server has no tools of its own", where, type));
      Json function = Json::object({{"name", tool.required_text("name")}});
      if (const auto description = tool.text("description")) function["description"] = *description;
      const Json* schema = tool.object("input_schema");
      function["parameters"] = schema ? *schema : Json::object();
      if (tool.flag("strict").value_or(false)) function["strict"] = true;
      Json entry = Json::object({{"type", "function"}});
      entry["function"] = std::move(function);
      chat.tools.push_back(std::move(entry));
    }
  const Json* choice = fields.object("tool_choice");
  if (choice == nullptr) return;
  const Fields choice_fields(*choice, "tool_choice");
  const std::string type = choice_fields.required_text("type");
  if (type == "none") chat.tools.clear();
  if (type == "any" || type == "tool") chat.must_call = true;
  if (type == "tool") chat.tool = choice_fields.required_text("name");
  if (type != "none" && type != "any" && type != "tool" && type != "auto")
    refuse("tool_choice.type", fmt::format("tool_choice.type is \"{}\", must be auto, any, tool or none", type));
}

ChatRequest read_conversation(const Fields& fields) {
  ChatRequest chat;
  const Json* messages = fields.array("messages", kMaxMessages);
  if (messages == nullptr) refuse("messages", "messages is missing: it must be an array");
  Json translated = Json::array();
  if (const Json* system = fields.find("system"))
    translated.push_back({{"role", "system"}, {"content", plain_text(*system, "system")}});
  for (size_t i = 0; i < messages->size(); ++i) translate((*messages)[i], fmt::format("messages[{}]", i), translated);
  if (messages->empty()) refuse("messages", "messages is empty");
  chat.messages = normal_messages(translated, "messages");
  const Json& last = chat.messages.back();
  // What the assistant has begun to say is to be gone on with.
  chat.continues = chat.messages.size() > 1 && last["role"] == "assistant" && !last.contains("tool_calls");
  read_anthropic_tools(fields, chat);
  return chat;
}

// The answer as blocks, told as events while they come. `emit` may do nothing.
class MessageWriter {
 public:
  using Emit = std::function<void(const char* type, Json event)>;
  explicit MessageWriter(Emit emit) : emit_(std::move(emit)) {}

  void add(const ToolCallParser::Output& said) {
    if (!said.content.empty()) add_text(said.content);
    for (const ToolCall& call : said.calls) add_call(call);
  }
  void close() {
    if (!open_) return;
    open_ = false;
    emit_("content_block_stop", Json::object({{"index", blocks_.size() - 1}}));
  }
  Json& blocks() { return blocks_; }

 private:
  void start(Json block) {
    close();
    blocks_.push_back(block);
    open_ = true;
    emit_("content_block_start", {{"index", blocks_.size() - 1}, {"content_block", std::move(block)}});
  }
  void delta(Json delta) { emit_("content_block_delta", {{"index", blocks_.size() - 1}, {"delta", std::move(delta)}}); }

  void add_text(const std::string& text) {
    if (!open_ || blocks_.back()["type"] != "text") start({{"type", "text"}, {"text", ""}});
    Json& all = blocks_.back()["text"];
    all = all.get<std::string>() + text;
    delta({{"type", "text_delta"}, {"text", text}});
  }
  void add_call(const ToolCall& call) {
    start({{"type", "tool_use"}, {"id", make_id("toolu_")}, {"name", call.name}, {"input", Json::object()}});
    delta({{"type", "input_json_delta"}, {"partial_json", call.arguments}});
    try {
      Json input = parse_json(call.arguments);
      if (input.is_object()) blocks_.back()["input"] = std::move(input);
    } catch (const RequestError&) {  // a model's JSON may be broken: the input stays empty
    }
    close();
  }

  Emit emit_;
  Json blocks_ = Json::array();
  bool open_ = false;
};

struct Message {
  std::shared_ptr<ServedModel> model;
  std::string id = make_id("msg_");
  bool stream = false;
  ChatPrompt prompt;
  std::vector<std::string> stops;
  std::unique_ptr<Generations> generations;
  Usage usage;
  std::string stop_reason, stop_sequence;

  Json usage_json() const {
    return {{"input_tokens", usage.prompt - usage.cached},
            {"cache_creation_input_tokens", 0},
            {"cache_read_input_tokens", usage.cached},
            {"output_tokens", usage.generated}};
  }
  Json ends() const {
    return {{"stop_reason", stop_reason.empty() ? Json(nullptr) : Json(stop_reason)},
            {"stop_sequence", stop_sequence.empty() ? Json(nullptr) : Json(stop_sequence)}};
  }
  Json json(Json content) const {
    Json all = {{"id", id}, {"type", "message"}, {"role", "assistant"}, {"model", model->name}};
    all["content"] = std::move(content);
    all.update(ends());
    all["usage"] = usage_json();
    return all;
  }
};

std::shared_ptr<Message> read_message(const Service& service, const HttpRequest& request) {
  const Json body = parse_object(request.body);
  const Fields fields(body);
  auto message = std::make_shared<Message>();
  message->model = read_model_with_room(service, request, fields);
  message->stream = fields.flag("stream").value_or(false);
  const auto most = fields.integer("max_tokens", 1, INT32_MAX);
  if (!most) refuse("max_tokens", "max_tokens is missing: it must be an integer");
  message->prompt = make_prompt(*message->model, read_conversation(fields), "messages");
  message->stops = read_stops(fields, "stop_sequences");
  GenerationRequest generation = chat_generation(*message->model, message->prompt);
  generation.client = request.client;
  read_sampling(fields, generation);
  generation.options.stop = message->stops;
  generation.options.stop.insert(generation.options.stop.end(), message->model->ends.texts.begin(),
                                 message->model->ends.texts.end());
  generation.options.max_tokens = static_cast<uint64_t>(*most);
  generation.options.grammar = message->prompt.prefix.empty() ? read_form(*message->model, fields, messages_forms())
                                                              : call_grammar(*message->model, message->prompt);
  message->generations = std::make_unique<Generations>(
      message->model, std::vector<GenerationRequest>{std::move(generation)}, request.gone);
  return message;
}

// False when the client has left.
bool generate(Message& message, MessageWriter& writer, const std::function<bool()>& alive) {
  ChatAnswer answer(*message.model, message.prompt);
  return message.generations->run({[&](size_t, const GenerationPiece& piece) { writer.add(answer.push(piece)); },
                                   [&](size_t, const Generation& generation) {
                                     writer.add(answer.finish());
                                     const GenerateResult& result = generation.result();
                                     message.usage.add(generation, /*counts_prompt=*/true);
                                     message.stop_sequence = met_stop(*message.model->engine, result, message.stops);
                                     message.stop_reason = answer.called()                          ? "tool_use"
                                                           : result.finish == FinishReason::kLength ? "max_tokens"
                                                           : message.stop_sequence.empty()          ? "end_turn"
                                                                                                    : "stop_sequence";
                                   },
                                   alive});
}

void answer_stream(Message& message, Events& events) {
  const auto emit = [&](const char* type, Json event) {
    Json all = Json::object({{"type", type}});
    all.update(event);
    events.event(type, all);
  };
  message.usage.prompt = message.prompt.tokens.size();
  emit("message_start", Json::object({{"message", message.json(Json::array())}}));
  message.usage = {};
  emit("ping", Json::object());
  MessageWriter writer(emit);
  if (!generate(message, writer, [&] { return events.alive(); })) return;
  writer.close();
  emit("message_delta", {{"delta", message.ends()}, {"usage", message.usage_json()}});
  emit("message_stop", Json::object());
}

}  // namespace

void messages(Service& service, const HttpRequest& request, HttpResponse& response) {
  std::shared_ptr<Message> message = read_message(service, request);
  if (!message->stream) {
    MessageWriter writer([](const char*, const Json&) {});
    if (!generate(*message, writer, [&] { return !request.gone(); })) throw RequestError(499, "the client has left");
    response.body = to_text(message->json(std::move(writer.blocks())));
    *response.note = message->usage.note(*message->model);
    return;
  }
  stream_events(request, response, ErrorForm::kAnthropic, [message, note = response.note](Events& events) {
    answer_stream(*message, events);
    *note = message->usage.note(*message->model);
  });
}

void count_message_tokens(Service& service, const HttpRequest& request, HttpResponse& response) {
  const Json body = parse_object(request.body);
  const Fields fields(body);
  const std::shared_ptr<ServedModel> model = read_model(service, fields);
  const ChatPrompt prompt = make_prompt(*model, read_conversation(fields), "messages");
  response.body = to_text(Json::object({{"input_tokens", prompt.tokens.size()}}));
}

}  // namespace upg::serve
