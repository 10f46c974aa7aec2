// A conversation with a model: messages in, answers out, and no token read twice. The chat template and the model come
// from the Engine; prompting, editing and files of history are the program's business.
//
//   upg::Chat chat(upg::Engine::open("phi-4.upg"));
//   chat.say("What is a prime number?", {}, [](std::string_view text) { std::cout << text; return true; });
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "upg/engine.h"

namespace upg {

/// A chat template of the library's own, for models that bring none: EngineOptions::chat_template = text.
struct BuiltinTemplate {
  std::string_view name;  // "chatml"
  std::string_view summary;
  std::string_view text;  // Jinja
};
std::span<const BuiltinTemplate> builtin_chat_templates();

/// How a model's chat template ends an answer: tokens, or text where it is none.
struct ChatEnds {
  std::vector<int32_t> tokens;
  std::vector<std::string> texts;
};
/// What the template puts behind an answer, found with a made-up conversation. Throws Error(kNotFound) for a model
/// without a chat template.
ChatEnds chat_ends(const Engine& engine);

/// prompt_tokens are those that were read for this answer, the reused ones left out.
struct ChatResult : GenerateResult {
  uint64_t reused_tokens = 0;  // of the prompt, which the session held already
};

/// Where a call throws, the conversation is what it was before the call.
class Chat {
 public:
  using Emit = std::function<bool(std::string_view text)>;  // as in Session::generate

  /// Throws Error(kNotFound) for a model without a chat template.
  explicit Chat(std::shared_ptr<Engine> engine, const SessionOptions& options = {});
  ~Chat();
  Chat(Chat&&) noexcept;

  /// Adds a message of the user's and the answer, also one that `emit` cut short. The answer ends at the tokens of
  /// options, of the model, and of the template. Throws Error(kInvalidArgument) for a message or option that is wrong
  /// and for a conversation that the context cannot hold, Error(kCancelled) where options.progress asked for it.
  ChatResult say(std::string_view text, const GenerateOptions& options = {}, const Emit& emit = {});

  /// Samples the last answer again, in place of what it was: the first time with seed + 1, then seed + 2...
  ChatResult regenerate(const GenerateOptions& options = {}, const Emit& emit = {});

  /// The answer to a conversation that the caller keeps: a JSON array of messages as for Engine::render_chat. Reuses
  /// what the session holds, and leaves this object's own messages alone.
  ChatResult reply(std::string_view messages_json, const ChatOptions& chat, const GenerateOptions& options,
                   const Emit& emit = {});

  /// Forgets all messages but the system's.
  void clear();
  /// Forgets all messages; `text` begins every conversation from now on. Empty: no system message.
  void set_system(std::string_view text);
  const std::string& system() const;
  uint64_t messages() const;  // the system message left out

  /// {"messages": [{"role": "user", "content": "..."}, ...]}
  std::string to_json() const;
  /// Takes over such a conversation; other keys of the object are the caller's. `where` names it in errors. Throws
  /// Error(kInvalidFile) for roles other than an optional system message, then user and assistant in turn.
  void from_json(std::string_view json, std::string_view where = "conversation");
  /// to_json() with the JSON text `params` beside the messages, into a file that appears complete or not at all.
  void save(const std::string& path, std::string_view params = "{}") const;
  /// Reads it back. `accept` gets the params before anything changes, "{}" where there are none; it may throw.
  void load(const std::string& path, const std::function<void(std::string_view params)>& accept = {});

  uint64_t tokens() const;   // of the conversation, that the session holds
  uint64_t context() const;  // that it can hold
  /// As chat_ends() has them.
  const std::vector<int32_t>& end_tokens() const;
  const std::vector<std::string>& end_texts() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace upg
