#include "tool_formats.h"

#include <string_view>

namespace upg::serve {
namespace {

constexpr ToolFormat kFormats[] = {
    {"hermes", "<tool_call>", "</tool_call>", "arguments", "<tool_call>\n{\"name\": \""},
    {"mistral", "[TOOL_CALLS]", "", "arguments", "[TOOL_CALLS][{\"name\": \""},
    {"phi-4-mini", "<|tool_call|>", "<|/tool_call|>", "arguments", "<|tool_call|>[{\"name\": \""},
    {"functools", "functools", "", "arguments", "functools[{\"name\": \""},
    {"llama-3-tag", "<|python_tag|>", "", "parameters", "<|python_tag|>{\"name\": \""},
    {"llama-3", "", "", "parameters", "{\"name\": \""},
};

constexpr std::string_view kProbeTools = R"([{"type": "function", "function": {"name": "upg_probe",
    "description": "d", "parameters": {"type": "object", "properties": {"upg_key": {"type": "string"}}}}}])";
constexpr std::string_view kProbeMessages = R"([{"role": "user", "content": "upg-question"},
    {"role": "assistant", "content": "", "tool_calls": [{"id": "upgprobe1", "type": "function",
     "function": {"name": "upg_probe", "arguments": {"upg_key": "upg-value"}}}]}])";

}  // namespace

std::span<const ToolFormat> tool_formats() { return kFormats; }

const ToolFormat* find_tool_format(const Engine& engine) {
  std::string text;
  try {
    text = engine.render_chat(kProbeMessages, {.add_generation_prompt = false, .tools = std::string(kProbeTools)});
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kInvalidArgument) throw;
    return nullptr;  // a template may refuse tools
  }
  const size_t question = text.rfind("upg-question");
  if (question == std::string::npos) return nullptr;
  const std::string_view answer = std::string_view(text).substr(question);
  if (answer.find("upg_probe") == std::string_view::npos || answer.find("upg-value") == std::string_view::npos)
    return nullptr;
  for (const ToolFormat& format : kFormats)
    if (answer.find(format.begin) != std::string_view::npos &&
        answer.find("\"" + std::string(format.arguments) + "\"") != std::string_view::npos)
      return &format;
  return nullptr;
}

}  // namespace upg::serve
