// How statements run.
#include <algorithm>

#include "text/jinja/ast.h"

namespace upg::jinja {
namespace {

/// Sends what is written to a text of its own while it lives.
class Capture {
 public:
  explicit Capture(Runtime& rt) : rt_(rt), outer_(rt.sink) { rt.sink = &text_; }
  ~Capture() { rt_.sink = outer_; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  std::string take() { return std::move(text_); }

 private:
  Runtime& rt_;
  std::string* outer_;
  std::string text_;
};

FramePtr inner(const FramePtr& frame) { return std::make_shared<Frame>(frame->program, frame); }

struct Macro : ObjectData {
  Macro(const MacroDefinition& d, FramePtr f) : definition(d), frame(std::move(f)) {}
  std::string_view type_name() const override { return "Macro"; }
  std::string repr(Runtime&) const override {
    if (definition.name.empty()) return "<Macro anonymous>";
    std::string out = "<Macro ";
    append_text_repr(out, definition.name);
    return out + ">";
  }
  bool callable() const override { return true; }
  bool attribute(Runtime& rt, std::string_view name, Value& out) const override {
    if (name == "name") {
      out = definition.name.empty() ? Value::none() : rt.text(definition.name);
    } else if (name == "arguments") {
      std::vector<Value> names;
      for (const auto& parameter : definition.parameters) names.push_back(rt.text(parameter.second));
      out = rt.tuple(std::move(names));
    } else if (name == "caller" || name == "catch_kwargs" || name == "catch_varargs") {
      out = Value::boolean(name == "caller"         ? definition.uses_caller
                           : name == "catch_kwargs" ? definition.uses_kwargs
                                                    : definition.uses_varargs);
    } else {
      return false;
    }
    return true;
  }

  Value call(Runtime& rt, CallArguments& arguments) override {
    const auto& parameters = definition.parameters;
    const FramePtr local = inner(frame);
    const size_t given = std::min(arguments.positional.size(), parameters.size());
    std::vector<bool> missing(parameters.size(), false);
    bool found_caller = given == parameters.size() && definition.explicit_caller;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const auto& [symbol, name] = parameters[i];
      if (i < given) {
        local->set(symbol, arguments.positional[i]);
      } else if (auto named = arguments.take(name)) {
        local->set(symbol, std::move(*named));
      } else {
        missing[i] = true;
      }
      found_caller |= i >= given && name == "caller";
    }
    if (definition.uses_caller && !found_caller) {
      const Value caller = arguments.take("caller").value_or(Value::none());
      local->set(definition.caller, caller.is_none() ? rt.undefined("No caller defined") : caller);
    }
    rest(rt, arguments, given, *local);
    defaults(rt, missing, local);
    Capture capture(rt);
    run_body(rt, definition.body, local);
    return rt.text(capture.take());
  }

  const MacroDefinition& definition;
  FramePtr frame;

 private:
  void rest(Runtime& rt, CallArguments& arguments, size_t used, Frame& local) const {
    if (definition.uses_kwargs) {
      auto dict = std::make_shared<DictData>();
      for (auto& [name, value] : arguments.named) dict->set(Value::text(name), std::move(value));
      local.set(definition.kwargs, rt.dict(std::move(dict)));
    } else if (!arguments.named.empty()) {
      rt.fail("macro '{}' takes no keyword argument '{}'", definition.name, arguments.named[0].first);
    }
    if (definition.uses_varargs) {
      local.set(definition.varargs,
                rt.tuple({arguments.positional.begin() + static_cast<ptrdiff_t>(used), arguments.positional.end()}));
    } else if (arguments.positional.size() > used) {
      rt.fail("macro '{}' takes not more than {} argument(s)", definition.name, definition.parameters.size());
    }
  }

  void defaults(Runtime& rt, const std::vector<bool>& missing, const FramePtr& local) const {
    const auto& parameters = definition.parameters;
    const size_t first = parameters.size() - definition.defaults.size();
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (!missing[i]) continue;
      const auto& [symbol, name] = parameters[i];
      local->set(symbol, i >= first ? definition.defaults[i - first]->value(rt, local)
                                    : rt.undefined(fmt::format("parameter '{}' was not provided", name)));
    }
  }
};

// What a loop's `if` lets through.
struct TestedCursor : Cursor {
  TestedCursor(const ForStmt& s, FramePtr f, std::shared_ptr<Cursor> c)
      : statement(s), frame(std::move(f)), cursor(std::move(c)) {}
  bool next(Runtime& rt, Value& out) override {
    while (cursor->next(rt, out)) {
      const FramePtr local = inner(frame);
      statement.target.assign(rt, local, out);
      if (truth(rt, statement.test->value(rt, local))) return true;
    }
    return false;
  }
  const ForStmt& statement;
  FramePtr frame;
  std::shared_ptr<Cursor> cursor;
};

/// The variable `loop`. Looks one item ahead only when asked what comes.
struct Loop : ObjectData, std::enable_shared_from_this<Loop> {
  std::string_view type_name() const override { return "LoopContext"; }
  bool callable() const override { return true; }

  bool advance(Runtime& rt) {
    Value next_item;
    if (ahead) {
      next_item = std::move(*ahead);
      ahead.reset();
    } else if (!fetch(rt, next_item)) {
      return false;
    }
    ++index0;
    before = std::move(current);
    current = std::move(next_item);
    return true;
  }

  Value call(Runtime& rt, CallArguments& arguments) override {
    if (!statement->recursive) rt.fail("only a loop with 'recursive' can be called");
    if (arguments.positional.size() != 1 || !arguments.named.empty())
      rt.fail("loop() takes one argument, {} were given", arguments.positional.size() + arguments.named.size());
    Capture capture(rt);
    statement->loop(rt, outer, arguments.positional[0], depth0 + 1);
    return rt.text(capture.take());
  }

  std::optional<int64_t> length(Runtime& rt) const override { return const_cast<Loop*>(this)->total(rt); }
  bool attribute(Runtime& rt, std::string_view name, Value& out) const override;
  std::string repr(Runtime& rt) const override { return fmt::format("<LoopContext {}/{}>", index0 + 1, *length(rt)); }

  bool fetch(Runtime& rt, Value& out) {
    if (!drained) return cursor->next(rt, out);
    if (drained_at >= drained->size()) return false;
    out = (*drained)[drained_at++];
    return true;
  }

  bool peek(Runtime& rt) {
    Value out;
    if (!ahead && fetch(rt, out)) ahead = std::move(out);
    return ahead.has_value();
  }

  int64_t total(Runtime& rt) {
    if (known_length) return *known_length;
    drained.emplace();
    drained_at = 0;
    for (Value each; cursor->next(rt, each); drained->push_back(each)) rt.charge(sizeof(Value));
    known_length = static_cast<int64_t>(drained->size()) + index0 + 1 + (ahead ? 1 : 0);
    return *known_length;
  }

  const ForStmt* statement = nullptr;
  FramePtr outer;
  std::shared_ptr<Cursor> cursor;
  std::optional<std::vector<Value>> drained;  // the rest of a sequence whose length was asked for
  size_t drained_at = 0;
  std::optional<int64_t> known_length;
  std::optional<Value> ahead;
  Value current, before;
  std::optional<std::vector<Value>> last_changed;
  int64_t index0 = -1, depth0 = 0;
};

/// loop.cycle and loop.changed.
struct LoopMethod : ObjectData {
  LoopMethod(std::shared_ptr<Loop> l, bool c) : loop(std::move(l)), cycle(c) {}
  std::string_view type_name() const override { return "method"; }
  bool callable() const override { return true; }
  Value call(Runtime& rt, CallArguments& arguments) override {
    if (!arguments.named.empty()) rt.fail("loop.cycle() and loop.changed() take no keyword arguments");
    std::vector<Value>& values = arguments.positional;
    if (cycle) {
      if (values.empty()) rt.fail("no items for cycling given");
      return values[static_cast<size_t>(loop->index0) % values.size()];
    }
    const bool alike = loop->last_changed && loop->last_changed->size() == values.size() &&
                       std::equal(values.begin(), values.end(), loop->last_changed->begin(),
                                  [&](const Value& a, const Value& b) { return equal(rt, a, b); });
    if (!alike && !loop->last_changed) rt.at_end([kept = loop] { kept->last_changed.reset(); });
    if (!alike) loop->last_changed = values;
    return Value::boolean(!alike);
  }
  std::shared_ptr<Loop> loop;
  bool cycle;
};

bool Loop::attribute(Runtime& rt, std::string_view name, Value& out) const {
  struct Row {
    std::string_view name;
    Value (*get)(Runtime&, Loop&);
  };
  static constexpr Row kAttributes[] = {
      {"index", [](Runtime&, Loop& l) { return Value::integer(l.index0 + 1); }},
      {"index0", [](Runtime&, Loop& l) { return Value::integer(l.index0); }},
      {"revindex", [](Runtime& r, Loop& l) { return Value::integer(l.total(r) - l.index0); }},
      {"revindex0", [](Runtime& r, Loop& l) { return Value::integer(l.total(r) - l.index0 - 1); }},
      {"first", [](Runtime&, Loop& l) { return Value::boolean(l.index0 == 0); }},
      {"last", [](Runtime& r, Loop& l) { return Value::boolean(!l.peek(r)); }},
      {"length", [](Runtime& r, Loop& l) { return Value::integer(l.total(r)); }},
      {"depth", [](Runtime&, Loop& l) { return Value::integer(l.depth0 + 1); }},
      {"depth0", [](Runtime&, Loop& l) { return Value::integer(l.depth0); }},
      {"previtem",
       [](Runtime& r, Loop& l) { return l.index0 == 0 ? r.undefined("there is no previous item") : l.before; }},
      {"nextitem", [](Runtime& r, Loop& l) { return l.peek(r) ? *l.ahead : r.undefined("there is no next item"); }},
  };
  Loop& self = const_cast<Loop&>(*this);
  for (const Row& row : kAttributes) {
    if (row.name != name) continue;
    out = row.get(rt, self);
    return true;
  }
  if (name != "cycle" && name != "changed") return false;
  out = rt.object(std::make_shared<LoopMethod>(self.shared_from_this(), name == "cycle"));
  out.shared()->depth = rt.deeper(depth);
  return true;
}

}  // namespace

Value make_macro(Runtime& rt, const MacroDefinition& definition, const FramePtr& frame) {
  auto macro = std::make_shared<Macro>(definition, frame);
  rt.at_end([macro] { macro->frame.reset(); });  // the frame holds the macro
  return rt.object(std::move(macro));
}

Flow Stmt::run(Runtime& rt, const FramePtr& frame) const {
  const Runtime::Level level(rt);
  rt.step();
  rt.line = line;
  return execute(rt, frame);
}

Flow run_body(Runtime& rt, const Body& body, const FramePtr& frame) {
  for (const auto& statement : body) {
    const Flow flow = statement->run(rt, frame);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

void Target::assign(Runtime& rt, const FramePtr& frame, const Value& value) const {
  if (!tuple && attribute.empty()) {
    frame->set(symbol, value);
    return;
  }
  rt.line = line;
  if (!tuple) {
    NameExpr name(line);
    name.symbol = symbol;
    const Value holder = name.value(rt, frame);
    auto* space = holder.is(Kind::kObject) ? dynamic_cast<NamespaceData*>(&holder.as<ObjectData>()) : nullptr;
    if (space == nullptr) rt.fail("cannot assign attribute on non-namespace object");
    if (attribute.starts_with('_'))
      rt.fail("templates cannot store attributes on a namespace whose names begin with '_': '{}'", attribute);
    rt.charge(sizeof(Value));
    space->attributes->set(Value::text(attribute), value);
    return;
  }
  if (!is_iterable(value)) rt.fail("cannot unpack non-iterable {} object", type_name(value));
  const auto cursor = iterate(rt, value);
  std::vector<Value> items;
  Value each;
  while (items.size() <= parts.size() && cursor->next(rt, each)) items.push_back(each);
  if (items.size() > parts.size()) rt.fail("too many values to unpack (expected {})", parts.size());
  if (items.size() < parts.size())
    rt.fail("not enough values to unpack (expected {}, got {})", parts.size(), items.size());
  for (size_t i = 0; i < parts.size(); ++i) parts[i].assign(rt, frame, items[i]);
}

bool Target::stores(Symbol wanted) const {
  if (!tuple) return symbol == wanted && attribute.empty();
  return std::any_of(parts.begin(), parts.end(), [&](const Target& part) { return part.stores(wanted); });
}

Flow TextStmt::execute(Runtime& rt, const FramePtr&) const {
  rt.write(text);
  return Flow::kNext;
}

Flow PrintStmt::execute(Runtime& rt, const FramePtr& frame) const {
  for (const ExprPtr& each : values) {
    const Value value = each->value(rt, frame);
    if (value.is_string())
      rt.write(value.as_string());
    else
      rt.write(to_text(rt, value));
  }
  return Flow::kNext;
}

Flow IfStmt::execute(Runtime& rt, const FramePtr& frame) const {
  for (const auto& [test, body] : branches)
    if (truth(rt, test->value(rt, frame))) return run_body(rt, body, frame);
  return run_body(rt, otherwise, frame);
}

Flow ForStmt::execute(Runtime& rt, const FramePtr& frame) const {
  return loop(rt, frame, sequence->value(rt, frame), 0);
}

Flow ForStmt::loop(Runtime& rt, const FramePtr& frame, const Value& over, int64_t depth) const {
  rt.line = line;
  auto state = std::make_shared<Loop>();
  state->statement = this;
  state->outer = frame;
  state->depth0 = depth;
  state->depth = rt.deeper(over.depth());
  state->cursor = iterate(rt, over);
  if (test) {
    state->cursor = std::make_shared<TestedCursor>(*this, frame, state->cursor);
  } else if (!over.is(Kind::kIterator)) {
    state->known_length = length_of(rt, over);
  }
  bool any = false;
  while (state->advance(rt)) {
    rt.step();
    any = true;
    const FramePtr local = inner(frame);
    local->set(loop_symbol, Value(Kind::kObject, state));
    target.assign(rt, local, state->current);
    const Flow flow = run_body(rt, body, local);
    if (flow == Flow::kBreak) break;
    rt.line = line;
  }
  // A break or continue in the else branch belongs to the loop around.
  return any ? Flow::kNext : run_body(rt, otherwise, inner(frame));
}

Flow SetStmt::execute(Runtime& rt, const FramePtr& frame) const {
  target.assign(rt, frame, value->value(rt, frame));
  return Flow::kNext;
}

Flow SetBlockStmt::execute(Runtime& rt, const FramePtr& frame) const {
  const FramePtr local = inner(frame);
  Capture capture(rt);
  const Flow flow = run_body(rt, body, local);
  if (flow != Flow::kNext) return flow;
  Value text = rt.text(capture.take());
  if (filter) {
    local->set(kCapturedSymbol, std::move(text));
    text = filter->value(rt, local);
  }
  target.assign(rt, frame, text);
  return Flow::kNext;
}

Flow WithStmt::execute(Runtime& rt, const FramePtr& frame) const {
  const FramePtr local = inner(frame);
  for (const auto& [assigned, value] : assignments) assigned.assign(rt, local, value->value(rt, frame));
  return run_body(rt, body, local);
}

Flow MacroStmt::execute(Runtime& rt, const FramePtr& frame) const {
  frame->set(symbol, make_macro(rt, macro, frame));
  return Flow::kNext;
}

Flow CallBlockStmt::execute(Runtime& rt, const FramePtr& frame) const {
  const Value result = call->call_with_caller(rt, frame, make_macro(rt, macro, frame));
  rt.write(to_text(rt, result));
  return Flow::kNext;
}

Flow FilterBlockStmt::execute(Runtime& rt, const FramePtr& frame) const {
  const FramePtr local = inner(frame);
  {
    Capture capture(rt);
    const Flow flow = run_body(rt, body, local);
    if (flow != Flow::kNext) return flow;
    local->set(kCapturedSymbol, rt.text(capture.take()));
  }
  rt.write(to_text(rt, filter->value(rt, local)));
  return Flow::kNext;
}

Flow ScopeStmt::execute(Runtime& rt, const FramePtr& frame) const {
  FramePtr outer = frame;
  if (!sees_locals)
    while (outer->parent) outer = outer->parent;
  return run_body(rt, body, inner(outer));
}

Flow FlowStmt::execute(Runtime&, const FramePtr&) const { return flow; }

Flow RefusedStmt::execute(Runtime& rt, const FramePtr&) const {
  rt.fail("'{}' is not supported: a chat template stands alone", what);
}

}  // namespace upg::jinja
