// One rendering: its budget, where it is, and how it makes and asks values. Everything that can fail does so through
// fail(), which knows the template's name and line.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/jinja.h"
#include "text/jinja/value.h"

namespace upg::jinja {

struct Frame;

class Runtime {
 public:
  Runtime(const std::string& name, const Limits& most, std::chrono::system_clock::time_point clock)
      : limits(most), now(clock), name_(name) {}
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  template <typename... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    raise(fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] void raise(const std::string& message) const;
  [[noreturn]] void fail_undefined(const Value& undefined) const;

  void step(uint64_t count = 1) {
    steps_ += count;
    if (steps_ > limits.max_steps) over_steps();
  }
  void charge(uint64_t bytes);
  void check_text(uint64_t bytes) const;  // before a text of that size is made

  Value text(std::string text, bool markup = false);
  Value list(std::vector<Value> items);
  Value tuple(std::vector<Value> items);
  Value dict(std::shared_ptr<DictData> dict);
  Value iterator(std::shared_ptr<Cursor> cursor, uint32_t depth);
  Value object(std::shared_ptr<ObjectData> object);
  Value undefined(std::string story);
  /// Bounds the depth of what contains something of `depth`.
  uint32_t deeper(uint32_t depth) const;

  /// x.name and x[key], as jinja2's sandbox looks them up: undefined where there is nothing.
  Value attribute(const Value& value, std::string_view name);
  Value item(const Value& value, const Value& key);
  Value slice(const Value& value, const Value& start, const Value& stop, const Value& step);
  Value call(const Value& callee, CallArguments& arguments);
  Value binary(char op, const Value& a, const Value& b);  // + - * / f (floor division) % p (power)
  Value negate(const Value& value, bool minus);

  Value apply_filter(std::string_view name, const Value& subject, CallArguments& arguments);
  bool apply_test(std::string_view name, const Value& subject, CallArguments& arguments);

  /// Values that can be part of a cycle are emptied when the rendering ends.
  void at_end(std::function<void()> clear) { clears_.push_back(std::move(clear)); }

  /// Counts levels of evaluation while it lives.
  struct Level {
    explicit Level(Runtime& runtime) : rt(runtime) {
      if (++rt.depth_ > rt.limits.max_depth) rt.over_depth();
    }
    ~Level() { --rt.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    Runtime& rt;
  };

  const Limits& limits;
  const std::chrono::system_clock::time_point now;
  uint32_t line = 1;
  std::string* sink = nullptr;  // where statements write
  void write(std::string_view text);

 private:
  [[noreturn]] void over_steps() const;
  [[noreturn]] void over_depth();
  std::string name_;
  uint64_t steps_ = 0;
  uint64_t bytes_ = 0;
  uint32_t depth_ = 0;
  std::vector<std::function<void()>> clears_;
};

/// Arguments of a built-in, matched with its parameters.
class Arguments {
 public:
  Arguments(Runtime& rt, std::string_view function, std::string_view parameters, size_t required,
            CallArguments& arguments);
  bool has(size_t i) const { return i < slots_.size() && slots_[i].has_value(); }
  const Value& at(size_t i) const { return *slots_[i]; }
  bool given(size_t i) const { return has(i) && !at(i).is_none(); }
  Value value(size_t i, Value otherwise) const { return has(i) ? at(i) : std::move(otherwise); }
  bool truth(size_t i, bool otherwise) const { return has(i) ? jinja::truth(rt_, at(i)) : otherwise; }
  int64_t integer(size_t i, int64_t otherwise) const;         // fails for what is no integer
  std::string string(size_t i, std::string otherwise) const;  // str() of it
  const std::string& text(size_t i) const;                    // fails for what is no text
  CallArguments& rest() const { return rest_; }               // with "*" as the last parameter: what is left

 private:
  Runtime& rt_;
  std::string_view function_;
  std::vector<std::optional<Value>> slots_;
  CallArguments& rest_;
};

// The lists. `parameters` are names with blanks between; "*" at the end takes any others.
struct Filter {
  std::string_view name;
  std::string_view parameters;  // after the subject
  size_t required;
  Value (*apply)(Runtime& rt, const Value& subject, const Arguments& arguments);
};
struct Test {
  std::string_view name;
  std::string_view parameters;
  size_t required;
  bool (*apply)(Runtime& rt, const Value& subject, const Arguments& arguments);
};
struct Method {
  std::string_view name;
  std::string_view parameters;
  size_t required;
  Value (*apply)(Runtime& rt, const Value& self, const Arguments& arguments);  // nullptr: changes self, so refused
};
struct Global {
  std::string_view name;
  std::string_view parameters;
  size_t required;
  Value (*apply)(Runtime& rt, const Arguments& arguments);
};

const Filter* find_filter(std::string_view name);
const Test* find_test(std::string_view name);
const Method* find_method(Kind kind, std::string_view name);
/// A function that every template has; nullopt where there is none of that name.
std::optional<Value> find_global(Runtime& rt, std::string_view name);
/// A value's attribute that is no method: (5).real
bool find_property(const Value& value, std::string_view name, Value& out);

// Formatting, in format.cc.
std::string percent_format(Runtime& rt, const std::string& format, const Value& arguments);
std::string brace_format(Runtime& rt, const std::string& format, CallArguments& arguments);

std::shared_ptr<DictData> make_dict(Runtime& rt, const Arguments& arguments);
int64_t to_index(Runtime& rt, const Value& value);  // of an integer or boolean

}  // namespace upg::jinja
