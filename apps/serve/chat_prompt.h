// From a conversation in the form of /v1/chat/completions to a prompt. The other chat routes translate theirs to it.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "generation_fields.h"
#include "models.h"
#include "tool_calls.h"

namespace upg::serve {

struct ChatRequest {
  Json messages;                    // an array
  Json tools = Json::array();       // of {"type": "function", "function": {...}}
  bool must_call = false;           // an answer must be a call,
  std::string tool;                 // of this tool where it is not empty
  Json variables = Json::object();  // of the template
  bool continues = false;           // the last message is the beginning of the answer
};

struct ChatPrompt {
  std::vector<int32_t> tokens;
  std::string prefix;           // text that the answer begins with by force, part of the prompt
  bool named = false;           // the tool, in the prefix
  Json callable;                // tools of which the answer must be a call
  std::set<std::string> tools;  // names of those that may be called
};

/// Checks roles and types, puts content that comes in parts together, and turns arguments of earlier calls from text
/// to JSON, which templates want. `field` names the messages in errors.
Json normal_messages(const Json& messages, const std::string& field);
/// Of a field "tools" and "tool_choice" in OpenAI's form.
void read_tools(const Fields& fields, ChatRequest& chat);

/// What stands between the name of a tool and its arguments.
std::string call_middle(const ToolFormat& format);

ChatPrompt make_prompt(const ServedModel& model, const ChatRequest& chat, const std::string& field);

/// The request of a chat without its sampling: prompt, ends of answers.
GenerationRequest chat_generation(const ServedModel& model, const ChatPrompt& prompt);

/// An answer as it comes: content and calls. Knows marks of calls that are special tokens and so have no text.
class ChatAnswer {
 public:
  ChatAnswer(const ServedModel& model, const ChatPrompt& prompt);
  ToolCallParser::Output push(const GenerationPiece& piece);
  ToolCallParser::Output finish() { return parser_.finish(); }
  bool called() const { return parser_.calls() > 0; }

 private:
  const Engine& engine_;
  ToolCallParser parser_;
  std::vector<std::pair<int32_t, std::string>> marks_;
};

}  // namespace upg::serve
