#include "tool_calls.h"

#include <algorithm>

#include "errors.h"
#include "json_reader.h"

namespace upg::serve {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

std::string_view from_first(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(kSpace), text.size()));
}

// How much of the end of `text` may be the beginning of `marker`.
size_t overlap(std::string_view text, std::string_view marker) {
  for (size_t n = std::min(text.size(), marker.size()); n > 0; --n)
    if (text.ends_with(marker.substr(0, n))) return n;
  return 0;
}

}  // namespace

size_t json_end(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if ((c == '}' || c == ']') && --depth <= 0) {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

ToolCallParser::Output ToolCallParser::push(std::string_view text) {
  Output out;
  if (names_.empty()) {
    out.content = text;
    return out;
  }
  held_ += text;
  while (step(out, /*last=*/false)) {
  }
  return out;
}

ToolCallParser::Output ToolCallParser::finish() {
  Output out;
  while (!held_.empty() && step(out, /*last=*/true)) {
  }
  if (calls_ == 0) out.content += space_;
  return out;
}

bool ToolCallParser::step(Output& out, bool last) {
  return inside_ != nullptr ? step_calls(out, last) : step_content(out, last);
}

void ToolCallParser::say(Output& out, std::string_view text) {
  const size_t end = text.find_last_not_of(kSpace) + 1;
  if (end > 0) {
    out.content += space_;
    out.content += text.substr(0, end);
    space_.clear();
    began_ = true;
  }
  space_ += text.substr(end);
}

bool ToolCallParser::step_content(Output& out, bool last) {
  if (held_.empty()) return false;
  size_t first = std::string::npos, keep = 0;
  const ToolFormat* found = nullptr;
  for (const ToolFormat& format : tool_formats()) {
    const std::string_view begin = format.begin;
    if (begin.empty()) continue;
    const size_t at = held_.find(begin);
    if (at < first) {
      first = at;
      found = &format;
    }
    keep = std::max(keep, overlap(held_, begin));
  }
  const std::string_view start = from_first(held_);
  if (!began_ && start.starts_with('{') && found == nullptr) {
    inside_ = &tool_formats().back();
    held_ = std::string(start);
    return true;
  }
  if (!began_ && start.empty() && !last) return false;
  if (found != nullptr) {
    say(out, std::string_view(held_).substr(0, first));
    held_.erase(0, first + std::string_view(found->begin).size());
    inside_ = found;
    return true;
  }
  if (last) keep = 0;
  say(out, std::string_view(held_).substr(0, held_.size() - keep));
  held_.erase(0, held_.size() - keep);
  return false;
}

bool ToolCallParser::step_calls(Output& out, bool last) {
  const ToolFormat& format = *inside_;
  const std::string_view start = from_first(held_);
  if (start.empty() && !last) return false;
  const bool json = start.starts_with('{') || start.starts_with('[');
  const size_t end = json ? json_end(start) : std::string_view::npos;
  if (json && end == std::string_view::npos && !last) return false;
  inside_ = nullptr;
  if (end != std::string_view::npos && take(start.substr(0, end), out)) {
    // Several calls may stand behind each other, with or without the marks between them.
    std::string_view rest = from_first(start.substr(end));
    const std::string_view close = format.end;
    if (!close.empty() && rest.starts_with(close)) {
      rest.remove_prefix(close.size());
    } else if (!close.empty() && !last && close.starts_with(rest)) {
      inside_ = &format;  // the end may still come, or another call
    } else if (rest.starts_with(';')) {
      rest.remove_prefix(1);
      began_ = false;
    }
    held_ = std::string(rest);
    return true;
  }
  // No call, then: what looked like one is text. An unfinished end of a call that was taken is not even that.
  const std::string_view close = format.end;
  if (calls_ > 0 && (start.empty() || (!close.empty() && close.starts_with(start)))) {
    held_.clear();
  } else if (!close.empty() && calls_ > 0 && start.starts_with(close)) {
    held_ = std::string(start.substr(close.size()));
  } else if (!close.empty() && calls_ > 0 && !last && close.starts_with(start)) {
    inside_ = &format;
    return false;
  } else {
    const size_t told = end == std::string_view::npos ? 0 : static_cast<size_t>(start.data() - held_.data()) + end;
    say(out, format.begin);
    began_ = true;
    say(out, std::string_view(held_).substr(0, told));
    held_.erase(0, told);
  }
  return true;
}

bool ToolCallParser::take(std::string_view text, Output& out) {
  Json value;
  try {
    value = parse_json(text);
  } catch (const RequestError&) {
    return false;
  }
  if (!value.is_array()) value = Json::array({value});
  std::vector<ToolCall> calls;
  for (const Json& call : value) {
    if (!call.is_object() || !call.contains("name") || !call["name"].is_string()) return false;
    ToolCall read{call["name"].get<std::string>(), "{}"};
    if (!names_.contains(read.name)) return false;
    for (const char* key : {"arguments", "parameters"}) {
      if (!call.contains(key)) continue;
      const Json& arguments = call[key];
      if (arguments.is_object())
        read.arguments = to_text(arguments);
      else if (arguments.is_string())  // JSON in a string, as the API itself has it
        read.arguments = arguments.get<std::string>();
      else
        return false;
    }
    calls.push_back(std::move(read));
  }
  if (calls.empty()) return false;
  calls_ += calls.size();
  began_ = true;
  space_.clear();
  std::move(calls.begin(), calls.end(), std::back_inserter(out.calls));
  return true;
}

}  // namespace upg::serve
