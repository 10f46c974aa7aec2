// Answers that must have a form: fields that ask for one, and calls of tools that a request insists on.
#pragma once

#include <memory>
#include <span>

#include "json_reader.h"
#include "upg/grammar.h"

namespace upg::serve {

struct ServedModel;
struct ChatPrompt;

/// A field that asks for a form, and how it is read.
struct FormField {
  const char* name;
  /// Of the field's value, at `where`; nullptr for plain text.
  std::unique_ptr<GrammarSource> (*read)(const Json& value, const std::string& where);
};

/// Fields of /v1/chat/completions and /v1/completions: OpenAI's, vLLM's and llama-server's.
std::span<const FormField> openai_forms();
/// "format" of "text" in /v1/responses.
std::span<const FormField> responses_forms();
/// Fields of /v1/messages.
std::span<const FormField> messages_forms();

/// What the one of `forms` asks for that `fields` has; nullptr for plain text. Throws RequestError for what cannot be
/// enforced, an answer that only looks constrained would be worse than none, and for two fields at once.
std::shared_ptr<const Grammar> read_form(const ServedModel& model, const Fields& fields,
                                         std::span<const FormField> forms);

/// For an answer that goes on after `prompt.prefix` and must be a call of one of its tools; nullptr where it need not.
std::shared_ptr<const Grammar> call_grammar(const ServedModel& model, const ChatPrompt& prompt);

}  // namespace upg::serve
