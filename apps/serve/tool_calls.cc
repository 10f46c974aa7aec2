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
  while (step(out, /*last=*/true)) {
  }
  if (calls_ == 0) out.content += space_;
  return out;
}

void ToolCallParser::begin(const ToolFormat& format) {
  format_ = &format;
  state_ = State::kBegun;
  again_ = false;
}

bool ToolCallParser::step(Output& out, bool last) {
  if (held_.empty()) return false;
  return state_ == State::kContent ? step_content(out, last)
         : state_ == State::kBegun ? step_begun(out, last)
                                   : step_called(last);
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
    begin(tool_formats().back());
    held_ = std::string(start);
    return true;
  }
  if (!began_ && start.empty() && !last) return false;
  if (found != nullptr) {
    say(out, std::string_view(held_).substr(0, first));
    held_.erase(0, first + std::string_view(found->begin).size());
    begin(*found);
    return true;
  }
  if (last) keep = 0;
  say(out, std::string_view(held_).substr(0, held_.size() - keep));
  held_.erase(0, held_.size() - keep);
  return false;
}

// Behind the mark that opens calls: one must come, or it was only text.
bool ToolCallParser::step_begun(Output& out, bool last) {
  const std::string_view start = from_first(held_);
  if (start.empty() && !last) return false;
  const bool json = start.starts_with('{') || start.starts_with('[');
  const size_t end = json ? json_end(start) : std::string_view::npos;
  if (json && end == std::string_view::npos && !last) return false;
  if (end != std::string_view::npos && take(start.substr(0, end), out)) {
    held_ = std::string(start.substr(end));
    state_ = State::kCalled;
    return true;
  }
  state_ = State::kContent;
  if (!again_) say(out, format_->begin);
  began_ = true;
  const size_t told = end == std::string_view::npos ? 0 : static_cast<size_t>(start.data() - held_.data()) + end;
  say(out, std::string_view(held_).substr(0, told));
  held_.erase(0, told);
  return true;
}

// Behind a call: the mark that closes it, another call, or text.
bool ToolCallParser::step_called(bool last) {
  const std::string_view start = from_first(held_), close = format_->end;
  if (start.empty() || (close.starts_with(start) && close != start)) {
    if (last) held_.clear();
    return false;
  }
  if (!close.empty() && start.starts_with(close)) {
    held_ = std::string(start.substr(close.size()));
    state_ = State::kContent;
  } else if (start.starts_with(';') || start.starts_with('{') || start.starts_with('[')) {
    held_ = std::string(start.substr(start.starts_with(';') ? 1 : 0));
    state_ = State::kBegun;
    again_ = true;
  } else {
    state_ = State::kContent;
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
