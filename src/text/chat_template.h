// From a conversation to the prompt that a model was trained on: the model's chat template, with the variables that
// transformers' apply_chat_template gives it. The template language is src/text/jinja.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "format/model_texts.h"

namespace upg {

struct ChatRequest {
  std::string_view messages;          // a JSON array of objects
  std::string_view tools{};           // a JSON array of tool definitions, or empty
  std::string_view variables{};       // a JSON object of further variables, or empty
  bool add_generation_prompt = true;  // end with the opening of the model's turn
};

class ChatTemplate {
 public:
  /// nullptr where the model has no template. `where` names the model in errors. A template that is not valid is an
  /// error of render(), so that a model can be used without it.
  static std::unique_ptr<ChatTemplate> from_texts(const ModelTexts& texts, std::string_view where);
  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  /// With tools, the template named "tool_use" where there is one. `now` is the time that templates may ask for.
  /// Thread-safe. Throws Error(kInvalidFile) for a template that is not valid, Error(kInvalidArgument) for a request
  /// that is not valid or that the template refuses.
  std::string render(const ChatRequest& request, std::optional<std::chrono::system_clock::time_point> now = {}) const;

 private:
  struct Parts;
  explicit ChatTemplate(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace upg
