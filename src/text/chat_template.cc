#include "text/chat_template.h"

#include <map>
#include <nlohmann/json.hpp>
#include <variant>
#include <vector>

#include "base/error.h"
#include "format/json.h"
#include "text/jinja/jinja.h"

namespace upg {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr int kMaxDepth = 64;
constexpr size_t kMaxKeys = 4096;  // of one object; looking for keys that are there twice is quadratic

// JSON of a request, in the order in which it is written.
OrderedJson parse_ordered(std::string_view text, std::string_view what) {
  std::vector<size_t> keys;
  int depth = 0;
  const auto check = [&](int, OrderedJson::parse_event_t event, OrderedJson&) {
    using Event = OrderedJson::parse_event_t;
    if (event == Event::object_start) keys.push_back(0);
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::object_start || event == Event::array_start) ++depth;
    if (event == Event::object_end || event == Event::array_end) --depth;
    if (depth > kMaxDepth) fail(ErrorCode::kInvalidArgument, "{}: nest deeper than {} levels", what, kMaxDepth);
    if (event == Event::key && ++keys.back() > kMaxKeys)
      fail(ErrorCode::kInvalidArgument, "{}: an object has more than {} keys", what, kMaxKeys);
    return true;
  };
  try {
    return OrderedJson::parse(text.begin(), text.end(), check);
  } catch (const OrderedJson::parse_error& error) {
    fail(ErrorCode::kInvalidArgument, "{}: not valid JSON at byte {} of {}", what, error.byte, text.size());
  } catch (const OrderedJson::exception&) {
    fail(ErrorCode::kInvalidArgument, "{}: not valid JSON: a number is out of range", what);
  }
}

// Fields without a value count as missing, and reasoning is known under several names: as transformers has it.
OrderedJson normalized(const OrderedJson& message) {
  static constexpr const char* kReasoning[] = {"reasoning_content", "thinking", "reasoning"};
  OrderedJson out = OrderedJson::object();
  const OrderedJson* reasoning = nullptr;
  for (const char* name : kReasoning) {
    const auto found = message.find(name);
    if (reasoning == nullptr && found != message.end() && !found->is_null()) reasoning = &*found;
  }
  if (reasoning != nullptr) out["thinking"] = *reasoning;
  for (const auto& [key, value] : message.items())
    if (!value.is_null()) out[key] = value;
  if (reasoning != nullptr) out["reasoning_content"] = *reasoning;
  return out;
}

OrderedJson read_messages(std::string_view text) {
  const OrderedJson messages = parse_ordered(text, "messages");
  if (!messages.is_array()) fail(ErrorCode::kInvalidArgument, "messages: must be an array of objects");
  if (messages.empty()) fail(ErrorCode::kInvalidArgument, "messages: there is none; give at least one");
  OrderedJson out = OrderedJson::array();
  for (const OrderedJson& message : messages) {
    if (!message.is_object())
      fail(ErrorCode::kInvalidArgument, "messages[{}]: must be an object with \"role\" and \"content\"", out.size());
    out.push_back(normalized(message));
  }
  return out;
}

// A token of tokenizer_config.json is its text or an object with it.
const Json* token_text(const Json& token) {
  if (token.is_string()) return &token;
  if (!token.is_object() || !token.contains("content") || !token["content"].is_string()) return nullptr;
  return &token["content"];
}

OrderedJson special_tokens(const Json& config) {
  static constexpr const char* kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                           "pad_token", "cls_token", "mask_token"};
  OrderedJson out = OrderedJson::object();
  for (const char* name : kNames) {
    const auto found = config.find(name);
    const Json* text = found == config.end() ? nullptr : token_text(*found);
    if (text != nullptr) out[name] = text->get<std::string>();
  }
  const auto more = config.find("additional_special_tokens");
  if (more == config.end() || !more->is_array()) return out;
  OrderedJson list = OrderedJson::array();
  for (const Json& each : *more)
    if (const Json* text = token_text(each)) list.push_back(text->get<std::string>());
  if (!list.empty()) out["additional_special_tokens"] = std::move(list);
  return out;
}

// Sources by name.
std::map<std::string, std::string> template_sources(const ModelTexts& texts, const Json& config) {
  std::map<std::string, std::string> out;
  const auto field = config.find("chat_template");
  if (field != config.end() && field->is_string()) out["default"] = field->get<std::string>();
  if (field != config.end() && field->is_array())
    for (const Json& each : *field)
      if (each.is_object() && each.contains("name") && each["name"].is_string() && each.contains("template") &&
          each["template"].is_string())
        out[each["name"].get<std::string>()] = each["template"].get<std::string>();
  if (texts.chat_template.empty()) return out;
  // A file of its own takes the place of all that the configuration has.
  const auto same = out.find("default");
  if (same == out.end() || same->second != texts.chat_template) out.clear();
  out["default"] = texts.chat_template;
  return out;
}

}  // namespace

struct ChatTemplate::Parts {
  std::string where;
  std::map<std::string, std::variant<jinja::Template, Error>> templates;
  OrderedJson tokens;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
ChatTemplate::~ChatTemplate() = default;

std::unique_ptr<ChatTemplate> ChatTemplate::from_texts(const ModelTexts& texts, std::string_view where) {
  const Json config = texts.tokenizer_config.empty()
                          ? Json::object()
                          : parse_json_object(texts.tokenizer_config, fmt::format("{}: tokenizer_config.json", where));
  const auto sources = template_sources(texts, config);
  if (sources.empty()) return nullptr;
  auto parts = std::make_unique<Parts>();
  parts->where = where;
  parts->tokens = special_tokens(config);
  for (const auto& [name, source] : sources) {
    const std::string full =
        fmt::format("{}: chat template{}", where, name == "default" ? "" : fmt::format(" \"{}\"", name));
    try {
      parts->templates.emplace(name, jinja::Template(source, full));
    } catch (const Error& error) {
      parts->templates.emplace(name, error);
    }
  }
  return std::unique_ptr<ChatTemplate>(new ChatTemplate(std::move(parts)));
}

std::string ChatTemplate::render(const ChatRequest& request,
                                 std::optional<std::chrono::system_clock::time_point> now) const {
  OrderedJson variables = parts_->tokens;
  variables["messages"] = read_messages(request.messages);
  OrderedJson tools;
  if (!request.tools.empty()) tools = parse_ordered(request.tools, "tools");
  if (!tools.is_null() && !tools.is_array()) fail(ErrorCode::kInvalidArgument, "tools: must be an array of objects");
  for (const OrderedJson& tool : tools)
    if (!tool.is_object()) fail(ErrorCode::kInvalidArgument, "tools: must be an array of objects");
  const bool with_tools = !tools.is_null();
  variables["tools"] = std::move(tools);
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = request.add_generation_prompt;
  if (!request.variables.empty()) {
    const OrderedJson more = parse_ordered(request.variables, "variables");
    if (!more.is_object()) fail(ErrorCode::kInvalidArgument, "variables: must be an object");
    for (const auto& [key, value] : more.items()) {
      if (key == "messages" || key == "tools" || key == "add_generation_prompt")
        fail(ErrorCode::kInvalidArgument, "variables: \"{}\" is not among them; it is given on its own", key);
      variables[key] = value;
    }
  }
  auto chosen = parts_->templates.end();
  if (with_tools) chosen = parts_->templates.find("tool_use");
  if (chosen == parts_->templates.end()) chosen = parts_->templates.find("default");
  if (chosen == parts_->templates.end())
    fail(ErrorCode::kInvalidFile, "{}: has chat templates, but none is named \"default\"", parts_->where);
  if (const Error* error = std::get_if<Error>(&chosen->second)) throw Error(*error);
  return std::get<jinja::Template>(chosen->second).render(variables, {}, now);
}

}  // namespace upg
