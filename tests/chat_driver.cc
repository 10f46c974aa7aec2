// Renders templates for tests/conformance_chat.py. Length-prefixed JSON objects from stdin, of two kinds:
//   {"source", "variables", "now"}: a template by itself; "now" is in seconds since 1970
//   {"chat_template", "tokenizer_config", "messages", "tools", "variables", "add_generation_prompt", "now"}: a model's
//   chat; texts of JSON, but for "add_generation_prompt"
// For each: a byte that is 0 for a result and 1 for an error, the 32-bit size of the text, the text. Little-endian
// hosts.
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "text/chat_template.h"
#include "text/jinja/jinja.h"
#include "upg/error.h"

namespace {

using Json = nlohmann::ordered_json;

std::string render(const Json& request) {
  const std::chrono::system_clock::time_point now{std::chrono::seconds(request.value("now", int64_t{0}))};
  if (request.contains("source"))
    return upg::jinja::Template(request["source"], "template").render(request["variables"], {}, now);
  upg::ModelTexts texts;
  texts.chat_template = request.value("chat_template", "");
  texts.tokenizer_config = request.value("tokenizer_config", "");
  const auto chat = upg::ChatTemplate::from_texts(texts, "model");
  if (!chat) throw upg::Error(upg::ErrorCode::kNotFound, "no template");
  const std::string messages = request["messages"], tools = request.value("tools", ""),
                    variables = request.value("variables", "");
  return chat->render({messages, tools, variables, request.value("add_generation_prompt", false)}, now);
}

void answer(char status, const std::string& text) {
  const uint32_t size = static_cast<uint32_t>(text.size());
  std::fwrite(&status, 1, 1, stdout);
  std::fwrite(&size, sizeof size, 1, stdout);
  std::fwrite(text.data(), 1, text.size(), stdout);
}

}  // namespace

int main() {
  std::string input;
  uint32_t size = 0;
  while (std::fread(&size, sizeof size, 1, stdin) == 1) {
    input.resize(size);
    if (std::fread(input.data(), 1, size, stdin) != size) return 1;
    try {
      answer(0, render(Json::parse(input)));
    } catch (const upg::Error& error) {
      answer(1, error.what());
    }
  }
  return 0;
}
