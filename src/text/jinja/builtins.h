// Where the lists of filters and methods lie, and what several of them share.
#pragma once

#include <span>

#include "text/jinja/runtime.h"

namespace upg::jinja {

extern const std::span<const Filter> kSequenceFilters;  // filters.cc
extern const std::span<const Filter> kTextFilters;      // filters_text.cc
extern const std::span<const Method> kTextMethods;      // methods_text.cc

/// An iterator that runs `next` until it returns false. `depth` is of what `next` holds.
template <typename Next>
Value make_iterator(Runtime& rt, uint32_t depth, Next next) {
  struct Generated : Cursor {
    explicit Generated(Next n) : step(std::move(n)) {}
    bool next(Runtime& runtime, Value& out) override {
      const Runtime::Level level(runtime);
      runtime.step();
      return step(runtime, out);
    }
    Next step;
  };
  return rt.iterator(std::make_shared<Generated>(std::move(next)), depth);
}

/// int() and float() of Python; nullopt for what they refuse.
std::optional<int64_t> python_int(Runtime& rt, const Value& value, int64_t base);
std::optional<double> python_float(Runtime& rt, const Value& value);

/// str.join of the texts of the items.
std::string join(Runtime& rt, std::string_view separator, const Value& items, bool only_texts);

}  // namespace upg::jinja
