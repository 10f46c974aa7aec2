#include "upg/chat.h"

#include <algorithm>
#include <optional>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "engine/engine_impl.h"
#include "format/json.h"
#include "text/unicode.h"

namespace upg {
namespace {

struct Message {
  std::string role, content;
};

using OrderedJson = nlohmann::ordered_json;

// All strings are valid UTF-8: messages are repaired, answers and JSON are valid.
OrderedJson to_value(const std::vector<Message>& messages) {
  OrderedJson list = OrderedJson::array();
  for (const Message& m : messages) list.push_back({{"role", m.role}, {"content", m.content}});
  return list;
}

std::string_view without_leading_space(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
}

std::string_view without_trailing_space(std::string_view text) {
  return text.substr(0, text.find_last_not_of(" \t\r\n") + 1);
}

// A message of a file: exactly a role and a content.
Message read_message(const Json& value, const std::string& where) {
  if (!value.is_object())
    fail(ErrorCode::kInvalidFile, "{} is of type {}, must be an object", where, value.type_name());
  for (const auto& [key, field] : value.items()) {
    if (key != "role" && key != "content")
      fail(ErrorCode::kInvalidFile, "{} has {:?}: a conversation's messages have role and content only", where, key);
    if (!field.is_string())
      fail(ErrorCode::kInvalidFile, "{}: {} is of type {}, must be a string", where, key, field.type_name());
  }
  if (value.size() != 2) fail(ErrorCode::kInvalidFile, "{} must have role and content", where);
  return {value["role"].get<std::string>(), value["content"].get<std::string>()};
}

struct Conversation {
  std::string system;
  std::vector<Message> messages;  // of the user and the assistant in turn
};

Conversation read_conversation(const Json& file, std::string_view where) {
  if (!file.contains("messages") || !file["messages"].is_array())
    fail(ErrorCode::kInvalidFile, "{}: must have \"messages\", an array", where);
  Conversation read;
  size_t index = 0;
  for (const Json& value : file["messages"]) {
    const std::string place = fmt::format("{}: messages[{}]", where, index);
    Message message = read_message(value, place);
    if (index++ == 0 && message.role == "system") {
      read.system = std::move(message.content);
      continue;
    }
    const std::string_view expected = read.messages.size() % 2 == 0 ? "user" : "assistant";
    if (message.role != expected)
      fail(ErrorCode::kInvalidFile, "{}: role is {:?}, must be {:?}: user and assistant take turns", place,
           message.role, expected);
    read.messages.push_back(std::move(message));
  }
  if (read.messages.size() % 2 != 0)
    fail(ErrorCode::kInvalidFile, "{}: the last message must be the assistant's", where);
  return read;
}

std::string repaired(std::string_view text) {
  std::string out;
  append_repaired_utf8(out, text, /*more=*/false);
  return out;
}

// Which tokens stand for the text that was rendered and generated last. What the model generated is kept as it was
// generated: encoding its text again may give other tokens, which would have to be read again.
class Transcript {
 public:
  explicit Transcript(const Engine& engine) : engine_(engine) {}

  /// The tokens of a rendered conversation, which this now stands for.
  std::vector<int32_t> extend_to(const std::string& text) {
    while (!points_.empty() && !extend_from(points_.back(), text)) points_.pop_back();
    if (points_.empty()) ids_ = engine_.tokenize(text, /*parse_special=*/true, /*add_special=*/false);
    text_ = text;
    if (points_.empty() || points_.back().text < text.size()) points_.push_back({text.size(), ids_.size()});
    return ids_;
  }

  /// What the model went on with. Text that is not all of what the tokens say (a stop string was cut off, a character
  /// is unfinished) is encoded afresh when it comes back.
  void append(const GenerateResult& answer) {
    if (answer.tokens.empty() || engine_.detokenize(answer.tokens) != answer.text) return;
    text_ += answer.text;
    ids_.insert(ids_.end(), answer.tokens.begin(), answer.tokens.end());
    points_.push_back({text_.size(), ids_.size()});
  }

 private:
  struct Point {
    size_t text, ids;  // how much of text_ how many of ids_ stand for
  };

  // A text may be cut in front of a special token without changing its tokens.
  bool extend_from(Point point, const std::string& text) {
    if (!text.starts_with(std::string_view(text_).substr(0, point.text))) return false;
    const std::vector<int32_t> rest =
        engine_.tokenize(std::string_view(text).substr(point.text), /*parse_special=*/true, /*add_special=*/false);
    if (!rest.empty() && !engine_.impl().require_tokenizer().is_special(rest[0])) return false;
    ids_.resize(point.ids);
    ids_.insert(ids_.end(), rest.begin(), rest.end());
    return true;
  }

  const Engine& engine_;
  std::string text_;
  std::vector<int32_t> ids_;
  std::vector<Point> points_;  // ends of prompts and of answers
};

// False where there is nothing but space.
bool take_end(const Engine& engine, std::string_view text, ChatEnds& ends) {
  const std::string_view end = without_leading_space(text);
  if (end.empty()) return false;
  const std::vector<int32_t> ids = engine.tokenize(end, /*parse_special=*/true, /*add_special=*/false);
  if (engine.impl().require_tokenizer().is_special(ids.at(0))) {
    ends.tokens.push_back(ids[0]);
    return true;
  }
  const bool breaks_line = text.substr(0, text.size() - end.size()).find('\n') != std::string_view::npos;
  ends.texts.push_back((breaks_line ? "\n" : "") + std::string(without_trailing_space(end)));
  return true;
}

}  // namespace

ChatEnds chat_ends(const Engine& engine) {
  constexpr std::string_view kAnswer = "upg-answer", kNext = "upg-next";
  ChatEnds ends;
  std::vector<Message> probe = {{"user", "upg-question"}, {"assistant", std::string(kAnswer)}};
  const auto behind_answer = [&]() -> std::string {
    try {
      const std::string text = engine.render_chat(to_value(probe).dump(), {.add_generation_prompt = false});
      const size_t at = text.rfind(kAnswer);
      return at == std::string::npos ? "" : text.substr(at + kAnswer.size());
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kInvalidArgument) throw;
      return "";  // a template may refuse what nobody has asked for
    }
  };
  if (take_end(engine, behind_answer(), ends)) return ends;
  probe.push_back({"user", std::string(kNext)});
  const std::string text = behind_answer();
  take_end(engine, std::string_view(text).substr(0, text.find(kNext)), ends);
  return ends;
}

struct Chat::Impl {
  Impl(std::shared_ptr<Engine> e, const SessionOptions& options)
      : engine(std::move(e)), session(engine, options), transcript(*engine) {
    if (!engine->has_chat_template())
      fail(ErrorCode::kNotFound,
           "{}: has no chat template. Choose one with --template, or continue a text with upg run",
           engine->impl().weights.path());
    ends = chat_ends(*engine);
  }

  OrderedJson all_messages() const {
    std::vector<Message> all;
    if (!system.empty()) all.push_back({"system", system});
    all.insert(all.end(), messages.begin(), messages.end());
    return to_value(all);
  }

  ChatResult reply(std::string_view json, const ChatOptions& chat, GenerateOptions options, const Emit& emit) {
    const std::vector<int32_t> ids = transcript.extend_to(engine->render_chat(json, chat));
    if (ids.size() > session.context())
      fail(
          ErrorCode::kInvalidArgument,
          "the conversation has {} tokens and the context holds {}: begin a new one (/clear in upg chat), or ask for a "
          "larger context (--context)",
          ids.size(), session.context());
    const std::span<const int32_t> before = session.tokens();
    const auto differs = std::mismatch(ids.begin(), ids.end(), before.begin(), before.end()).first;
    // The last token is read in any case: what comes after it is wanted.
    const uint64_t reused = session.rewind(
        std::min<uint64_t>(static_cast<uint64_t>(differs - ids.begin()), ids.empty() ? 0 : ids.size() - 1));
    options.end_tokens.insert(options.end_tokens.end(), ends.tokens.begin(), ends.tokens.end());
    if (!options.ignore_eos) options.stop.insert(options.stop.end(), ends.texts.begin(), ends.texts.end());
    ChatResult result{session.generate(std::span(ids).subspan(reused), options, emit), reused};
    transcript.append(result);
    return result;
  }

  // Answers the conversation as it stands.
  ChatResult answer(const GenerateOptions& options, const Emit& emit) {
    ChatResult result = reply(all_messages().dump(), {}, options, emit);
    messages.push_back({"assistant", result.text});
    held = session.length();
    return result;
  }

  void take(Conversation read) {
    system = std::move(read.system);
    messages = std::move(read.messages);
    again = held = 0;
  }

  std::shared_ptr<Engine> engine;
  Session session;
  Transcript transcript;
  std::string system;
  std::vector<Message> messages;
  uint64_t again = 0;  // how often the last answer was made anew
  uint64_t held = 0;   // positions of the session that are this conversation's
  ChatEnds ends;
};

Chat::Chat(std::shared_ptr<Engine> engine, const SessionOptions& options)
    : impl_(std::make_unique<Impl>(std::move(engine), options)) {}
Chat::~Chat() = default;
Chat::Chat(Chat&&) noexcept = default;

ChatResult Chat::say(std::string_view text, const GenerateOptions& options, const Emit& emit) {
  if (text.empty()) fail(ErrorCode::kInvalidArgument, "the message is empty");
  impl_->messages.push_back({"user", repaired(text)});
  try {
    ChatResult result = impl_->answer(options, emit);
    impl_->again = 0;
    return result;
  } catch (...) {
    impl_->messages.pop_back();
    throw;
  }
}

ChatResult Chat::regenerate(const GenerateOptions& options, const Emit& emit) {
  if (impl_->messages.empty()) fail(ErrorCode::kInvalidArgument, "there is no answer yet that could be made again");
  const Message dropped = impl_->messages.back();
  impl_->messages.pop_back();
  GenerateOptions changed = options;
  changed.sampling.seed += impl_->again + 1;
  try {
    ChatResult result = impl_->answer(changed, emit);
    ++impl_->again;
    return result;
  } catch (...) {
    impl_->messages.push_back(dropped);
    throw;
  }
}

ChatResult Chat::reply(std::string_view messages_json, const ChatOptions& chat, const GenerateOptions& options,
                       const Emit& emit) {
  impl_->held = 0;
  return impl_->reply(messages_json, chat, options, emit);
}

void Chat::clear() {
  impl_->messages.clear();
  impl_->again = impl_->held = 0;
}

void Chat::set_system(std::string_view text) {
  impl_->system = repaired(text);
  clear();
}

const std::string& Chat::system() const { return impl_->system; }
uint64_t Chat::messages() const { return impl_->messages.size(); }

std::string Chat::to_json() const { return OrderedJson({{"messages", impl_->all_messages()}}).dump(); }

void Chat::from_json(std::string_view json, std::string_view where) {
  impl_->take(read_conversation(parse_json_object(json, where), where));
}

void Chat::save(const std::string& path, std::string_view params) const {
  parse_json_object(params, "params");
  const OrderedJson file = {{"messages", impl_->all_messages()}, {"params", OrderedJson::parse(params)}};
  write_file(path, file.dump(2) + "\n");
}

void Chat::load(const std::string& path, const std::function<void(std::string_view)>& accept) {
  const Json file = parse_json_object(read_file(path), path);
  Conversation read = read_conversation(file, path);
  if (accept) accept(file.contains("params") ? file["params"].dump() : "{}");
  impl_->take(std::move(read));
}

uint64_t Chat::tokens() const { return impl_->held; }
uint64_t Chat::context() const { return impl_->session.context(); }
const std::vector<int32_t>& Chat::end_tokens() const { return impl_->ends.tokens; }
const std::vector<std::string>& Chat::end_texts() const { return impl_->ends.texts; }

}  // namespace upg
