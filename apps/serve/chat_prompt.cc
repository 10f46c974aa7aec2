#include "chat_prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "errors.h"
#include "limits.h"

namespace upg::serve {
namespace {

constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool", "function"};

// Content is a string, or an array of parts of which text alone can be read.
Json normal_content(const Json& content, const std::string& where) {
  if (content.is_string() || content.is_null()) return content;
  if (!content.is_array()) refuse_type(where, "a string or an array of parts", content);
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string part_name = fmt::format("{}[{}]", where, i);
    const Fields part(content[i], part_name);
    const std::string type = part.required_text("type");
    if (type != "text" && type != "input_text" && type != "output_text" && type != "refusal")
      refuse(part_name, fmt::format("{} is of type \"{}\": this server reads text only", part_name, type));
    if (i > 0) text += "\n";
    text += part.required_text(type == "refusal" ? "refusal" : "text");
  }
  return text;
}

void normalize_calls(Json& calls, const std::string& where) {
  if (!calls.is_array()) refuse_type(where, "an array", calls);
  for (size_t i = 0; i < calls.size(); ++i) {
    const std::string name = fmt::format("{}[{}]", where, i);
    const Fields call(calls[i], name);
    const Json* function = call.object("function");
    if (function == nullptr) refuse(name, fmt::format("{}.function is missing", name));
    const Fields fields(*function, name + ".function");
    fields.required_text("name");
    const Json* arguments = fields.find("arguments");
    if (arguments == nullptr || !arguments->is_string()) continue;
    try {
      Json parsed = parse_json(arguments->get<std::string>());
      if (parsed.is_object()) calls[i]["function"]["arguments"] = std::move(parsed);
    } catch (const RequestError&) {  // what a model wrote need not be JSON: the template gets the text
    }
  }
}

}  // namespace

Json normal_messages(const Json& messages, const std::string& field) {
  if (messages.empty()) refuse(field, fmt::format("{} is empty", field));
  Json out = Json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string where = fmt::format("{}[{}]", field, i);
    const Fields message(messages[i], where);
    std::string role = message.required_text("role");
    if (std::find(std::begin(kRoles), std::end(kRoles), role) == std::end(kRoles))
      refuse(where + ".role", fmt::format("{}.role is \"{}\", must be system, user, assistant or tool", where, role));
    Json copy = messages[i];
    if (role == "developer") copy["role"] = "system";
    copy["content"] = normal_content(messages[i].value("content", Json(nullptr)), where + ".content");
    const bool calls = message.find("tool_calls") != nullptr;
    if (calls) normalize_calls(copy["tool_calls"], where + ".tool_calls");
    if (copy["content"].is_null()) {
      if (!calls && role != "assistant") refuse(where + ".content", fmt::format("{}.content is missing", where));
      copy["content"] = "";
    }
    out.push_back(std::move(copy));
  }
  return out;
}

void read_tools(const Fields& fields, ChatRequest& chat) {
  const Json* choice = fields.find("tool_choice");
  if (choice != nullptr && !choice->is_string() && !choice->is_object())
    refuse_type("tool_choice", "a string or an object", *choice);
  if (const Json* tools = fields.array("tools", kMaxTools)) {
    for (size_t i = 0; i < tools->size(); ++i) {
      const std::string where = fmt::format("tools[{}]", i);
      const Fields tool((*tools)[i], where);
      const std::string type = tool.text("type").value_or("function");
      if (type != "function") refuse(where + ".type", fmt::format("{}.type is \"{}\", must be function", where, type));
      const Json* function = tool.object("function");
      if (function == nullptr) refuse(where + ".function", fmt::format("{}.function is missing", where));
      const Fields about(*function, where + ".function");
      const std::string name = about.required_text("name");
      const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) {
        return std::isalnum(c) != 0 || std::string_view("_-.:/").find(static_cast<char>(c)) != std::string_view::npos;
      });
      if (name.empty() || name.size() > 128 || !plain)
        refuse(where + ".function.name",
               fmt::format("{}.function.name must be letters, digits, _ and -, 128 at most", where));
      about.text("description");
      about.object("parameters");
      chat.tools.push_back((*tools)[i]);
    }
  }
  if (choice == nullptr) return;
  if (choice->is_object()) {
    const Fields named(*choice, "tool_choice");
    const Json* function = named.object("function");
    if (function == nullptr) refuse("tool_choice.function", "tool_choice.function is missing");
    chat.tool = Fields(*function, "tool_choice.function").required_text("name");
    chat.must_call = true;
  } else if (*choice == "none") {
    chat.tools.clear();
  } else if (*choice == "required") {
    chat.must_call = true;
  } else if (*choice != "auto") {
    refuse("tool_choice", "tool_choice must be none, auto, required or name a function");
  }
}

std::string call_middle(const ToolFormat& format) { return fmt::format("\", \"{}\": ", format.arguments); }

ChatPrompt make_prompt(const ServedModel& model, const ChatRequest& chat, const std::string& field) {
  if (!model.engine->has_chat_template())
    throw RequestError(
        400, fmt::format("the model \"{}\" has no chat template: /v1/completions continues a text", model.name),
        "model");
  ChatPrompt prompt;
  for (const Json& tool : chat.tools) prompt.tools.insert(tool["function"]["name"].get<std::string>());
  if (chat.must_call) {
    if (prompt.tools.empty()) refuse("tool_choice", "tool_choice asks for a call, but there are no tools");
    if (!chat.tool.empty() && !prompt.tools.contains(chat.tool))
      refuse("tool_choice", fmt::format("tool_choice names \"{}\", which is none of the tools", chat.tool));
    if (model.tools == nullptr)
      refuse("tool_choice", fmt::format("the chat template of \"{}\" does not know calls of tools", model.name));
    prompt.prefix = model.tools->open;
    const std::string tool = prompt.tools.size() == 1 ? *prompt.tools.begin() : chat.tool;
    prompt.named = !tool.empty();
    if (prompt.named) prompt.prefix += tool + call_middle(*model.tools);
    prompt.callable = Json::array();
    for (const Json& one : chat.tools)
      if (tool.empty() || one["function"]["name"] == tool) prompt.callable.push_back(one);
  }
  Json messages = chat.messages;
  std::string begun;
  if (chat.continues) {
    begun = messages.back()["content"].get<std::string>();
    messages.erase(messages.size() - 1);
  }
  ChatOptions options;
  if (!chat.tools.empty()) options.tools = to_text(chat.tools);
  if (!chat.variables.empty()) options.variables = to_text(chat.variables);
  std::string text;
  try {
    text = model.engine->render_chat(to_text(messages), options);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kInvalidArgument) throw;
    refuse(field, error.what());
  }
  prompt.tokens = model.engine->tokenize(text + begun + prompt.prefix, /*parse_special=*/true, /*add_special=*/false);
  check_length(model, prompt.tokens, field);
  return prompt;
}

GenerationRequest chat_generation(const ServedModel& model, const ChatPrompt& prompt) {
  GenerationRequest request;
  request.prompt = prompt.tokens;
  request.options.sampling = model.engine->default_sampling();
  request.options.end_tokens = model.ends.tokens;
  return request;
}

ChatAnswer::ChatAnswer(const ServedModel& model, const ChatPrompt& prompt)
    : engine_(*model.engine), parser_(prompt.tools) {
  if (prompt.tools.empty()) return;
  for (const ToolFormat& format : tool_formats())
    for (const std::string mark : {format.begin, format.end}) {
      if (mark.empty()) continue;
      const auto as_special = model.engine->tokenize(mark, /*parse_special=*/true, /*add_special=*/false);
      const auto as_text = model.engine->tokenize(mark, /*parse_special=*/false, /*add_special=*/false);
      if (as_special.size() == 1 && as_special != as_text) marks_.emplace_back(as_special[0], mark);
    }
  // An answer that is forced to be a call is one object: a list that the prefix opens is never closed.
  std::string prefix = prompt.prefix;
  const size_t object = prefix.find('{');
  if (object != std::string::npos && object > 0 && prefix[object - 1] == '[') prefix.erase(object - 1, 1);
  if (!prefix.empty()) parser_.push(prefix);
}

ToolCallParser::Output ChatAnswer::push(const GenerationPiece& piece) {
  std::string text = piece.text;
  // A piece of several tokens: the mark's place is found from the end, as text from before may still have been held.
  for (size_t i = piece.tokens.size(); i-- > 0;)
    for (const auto& [id, mark] : marks_) {
      if (id != piece.tokens[i]) continue;
      const size_t behind = i == 0 ? text.size() : engine_.detokenize(std::span(piece.tokens).subspan(i + 1)).size();
      text.insert(text.size() - std::min(text.size(), behind), mark);
      break;
    }
  return parser_.push(text);
}

}  // namespace upg::serve
