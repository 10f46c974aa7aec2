// Takes calls of tools out of an answer while it is being generated. Text that may still become a call is held back;
// what turns out to be none is content after all.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "tool_formats.h"

namespace upg::serve {

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON text of an object
};

class ToolCallParser {
 public:
  struct Output {
    std::string content;
    std::vector<ToolCall> calls;
  };

  /// Without names everything is content. `names`: the tools there are.
  explicit ToolCallParser(std::set<std::string> names) : names_(std::move(names)) {}

  Output push(std::string_view text);
  /// What was held back, when no more comes.
  Output finish();
  size_t calls() const { return calls_; }

 private:
  enum class State { kContent, kBegun, kCalled };
  bool step(Output& out, bool last);
  bool step_content(Output& out, bool last);
  bool step_begun(Output& out, bool last);
  bool step_called(bool last);
  void begin(const ToolFormat& format);
  void say(Output& out, std::string_view text);
  bool take(std::string_view json, Output& out);

  std::set<std::string> names_;
  std::string held_;
  State state_ = State::kContent;
  const ToolFormat* format_ = nullptr;  // whose beginning was met
  bool again_ = false;                  // a call stands behind the same beginning already
  bool began_ = false;                  // something was said or called: an answer that is itself a call is past
  std::string space_;                   // held back: it is dropped in front of calls
  size_t calls_ = 0;
};

/// The end of the JSON value (object or array) that `text` begins with, or npos where it is unfinished.
size_t json_end(std::string_view text);

}  // namespace upg::serve
