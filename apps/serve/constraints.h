// Answers that must be JSON: response_format, and calls of tools that a request insists on.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "json_reader.h"
#include "upg/engine.h"
#include "upg/scheduler.h"

namespace upg::serve {

struct ServedModel;
struct ChatPrompt;

/// The bytes of every token, made when first asked for. Special tokens have none: no text contains them.
class Vocabulary {
 public:
  struct Token {
    std::string bytes;
    bool plain;  // goes into a JSON string as it is
  };
  const std::vector<Token>& tokens(const Engine& engine);

 private:
  std::once_flag made_;
  std::vector<Token> tokens_;
};

/// Of the field `name`; nullptr for plain text. Throws RequestError for what cannot be enforced: an answer that only
/// looks constrained would be worse than none.
std::shared_ptr<TokenConstraint> read_constraint(ServedModel& model, const Fields& fields, const char* name);

/// For an answer that goes on after `prompt.prefix` and must be a call of one of its tools; nullptr where it need not.
std::shared_ptr<TokenConstraint> call_constraint(ServedModel& model, const ChatPrompt& prompt);

}  // namespace upg::serve
