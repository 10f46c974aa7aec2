// THE list of ways in which models write calls of tools, and which of them a chat template writes.
#pragma once

#include <span>
#include <string>

#include "upg/engine.h"

namespace upg::serve {

struct ToolFormat {
  const char* name;
  const char* begin;      // opens calls; empty: the answer itself is one
  const char* end;        // closes them; may be missing
  const char* arguments;  // the key of the arguments; both known keys are read in any case
  const char* open;       // what an answer that must be a call begins with, up to the tool's name
};

std::span<const ToolFormat> tool_formats();

/// The row that the model's template uses for a call in the conversation, or nullptr.
const ToolFormat* find_tool_format(const Engine& engine);

}  // namespace upg::serve
