// Jinja templates with the meaning that transformers gives them for chats: Python's values, jinja2's default Undefined,
// its immutable sandbox, trim_blocks, lstrip_blocks, loop controls and {% generation %}.
//
// Does not load other templates (extends, include and import fail when they are reached) and never escapes HTML by
// itself. Integers have 64 bits: a result that needs more is an error. Start here; the parts are lists in filters.cc,
// filters_text.cc, tests.cc, methods.cc, methods_text.cc and globals.cc.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace upg::jinja {

/// What one rendering may use. A template and its variables come from strangers.
struct Limits {
  uint64_t max_steps = 5'000'000;     // expressions and statements evaluated, elements made or looked at
  uint64_t max_bytes = 256ull << 20;  // of all texts and containers made on the way, together
  uint64_t max_string = 32ull << 20;  // bytes of one text
  uint64_t max_output = 32ull << 20;  // bytes of the result
  uint64_t max_range = 100'000;       // numbers in one range(), as in jinja2's sandbox
  uint32_t max_depth = 1000;          // of evaluation: expressions, statements, macros and recursive loops
  uint32_t max_value_depth = 150;     // of lists in lists
};

struct Program;  // what the parser makes of a template

class Template {
 public:
  /// `name` stands in errors. Throws Error(kInvalidFile) with name and line for a template that is not valid.
  Template(const std::string& source, std::string name);
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  /// `variables` is an object. `now` is what strftime_now() formats, in local time; without, the clock's. Thread-safe.
  /// Throws Error(kInvalidArgument) with name and line for what the template refuses (raise_exception), for an
  /// operation that the values do not have, and for an exceeded limit.
  std::string render(const nlohmann::ordered_json& variables, const Limits& limits = {},
                     std::optional<std::chrono::system_clock::time_point> now = {}) const;

 private:
  std::unique_ptr<const Program> program_;
};

}  // namespace upg::jinja
