// A GrammarSource as xgrammar's structural tag: checked, its schemas normalised.
#pragma once

#include <string>

#include "upg/grammar.h"

namespace upg::grammar {

struct Tag {
  std::string text;         // JSON
  bool control_characters;  // whether they may come besides the ends of lines: never in JSON
};

/// Throws Error(kInvalidArgument). `check_patterns`: also for patterns in schemas that cannot be enforced, which takes
/// as long as it takes: see bounded.h.
Tag make_tag(const GrammarSource& source, uint64_t max_bytes, bool check_patterns);

}  // namespace upg::grammar
