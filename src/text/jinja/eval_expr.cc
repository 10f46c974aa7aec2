// How expressions evaluate.
#include "text/jinja/ast.h"
#include "text/jinja/text_ops.h"

namespace upg::jinja {

const Value* Frame::find(Symbol symbol) const {
  for (const auto& [each, value] : values)
    if (each == symbol) return &value;
  return nullptr;
}

void Frame::set(Symbol symbol, Value value) {
  for (auto& [each, old] : values) {
    if (each != symbol) continue;
    old = std::move(value);
    return;
  }
  values.emplace_back(symbol, std::move(value));
}

Value Expr::value(Runtime& rt, const FramePtr& frame) const {
  const Runtime::Level level(rt);
  rt.step();
  rt.line = line;
  return evaluate(rt, frame);
}

Value ConstExpr::evaluate(Runtime&, const FramePtr&) const { return constant; }

Value NameExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  const Frame* scope = frame.get();
  for (; scope != nullptr; scope = scope->parent.get()) {
    if (const Value* found = scope->find(symbol)) return *found;
    if (scope->variables == nullptr) continue;
    if (const Value* found = scope->variables->find(frame->program.symbols[symbol])) return *found;
  }
  const std::string& name = frame->program.symbols[symbol];
  if (auto global = find_global(rt, name)) return *global;
  return rt.undefined(fmt::format("'{}' is undefined", name));
}

Value SequenceExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  std::vector<Value> values;
  values.reserve(items.size());
  for (const ExprPtr& item : items) values.push_back(item->value(rt, frame));
  return tuple ? rt.tuple(std::move(values)) : rt.list(std::move(values));
}

Value DictExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  auto dict = std::make_shared<DictData>();
  for (const auto& [key, value] : entries) {
    const Value k = key->value(rt, frame);
    if (!key_text(k)) rt.fail("unhashable type: '{}'", type_name(k));
    dict->set(k, value->value(rt, frame));
  }
  return rt.dict(std::move(dict));
}

Value BinaryExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  const Value a = left->value(rt, frame);
  const Value b = right->value(rt, frame);
  rt.line = line;
  return rt.binary(op, a, b);
}

Value UnaryExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  const Value value = operand->value(rt, frame);
  rt.line = line;
  return op == '!' ? Value::boolean(!truth(rt, value)) : rt.negate(value, op == '-');
}

Value LogicExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  Value value = left->value(rt, frame);
  return truth(rt, value) == is_and ? right->value(rt, frame) : value;
}

Value ConcatExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  std::string out;
  for (const ExprPtr& part : parts) {
    out += to_text(rt, part->value(rt, frame));
    rt.check_text(out.size());
  }
  return rt.text(std::move(out));
}

Value CompareExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  Value left = first->value(rt, frame);
  for (const auto& [comparison, operand] : rest) {
    Value right = operand->value(rt, frame);
    rt.line = line;
    bool holds = false;
    if (comparison == Comparison::kEqual || comparison == Comparison::kNotEqual)
      holds = equal(rt, left, right) == (comparison == Comparison::kEqual);
    else if (comparison == Comparison::kIn || comparison == Comparison::kNotIn)
      holds = contains(rt, right, left) == (comparison == Comparison::kIn);
    else
      holds = ordered(rt, left, right,
                      static_cast<Order>(static_cast<int>(comparison) - static_cast<int>(Comparison::kLess)));
    if (!holds) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value ConditionalExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  if (truth(rt, test->value(rt, frame))) return then->value(rt, frame);
  if (otherwise) return otherwise->value(rt, frame);
  return rt.undefined("the inline if-expression evaluated to false and no else section was defined.");
}

Value AttributeExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  const Value value = subject->value(rt, frame);
  rt.line = line;
  return rt.attribute(value, name);
}

Value ItemExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  const Value value = subject->value(rt, frame);
  const Value index = key->value(rt, frame);
  rt.line = line;
  return rt.item(value, index);
}

Value SliceExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  const auto part = [&](const ExprPtr& expr) { return expr ? expr->value(rt, frame) : Value::none(); };
  const Value value = subject->value(rt, frame);
  const Value from = part(start), to = part(stop), stride = part(step);
  rt.line = line;
  return rt.slice(value, from, to, stride);
}

CallArguments ArgumentList::evaluate(Runtime& rt, const FramePtr& frame) const {
  CallArguments out;
  out.positional.reserve(positional.size());
  for (const ExprPtr& each : positional) out.positional.push_back(each->value(rt, frame));
  for (const auto& [name, each] : named) out.named.emplace_back(name, each->value(rt, frame));
  if (more_positional) {
    const std::vector<Value> more = to_vector(rt, more_positional->value(rt, frame));
    out.positional.insert(out.positional.end(), more.begin(), more.end());
  }
  if (more_named) {
    const Value more = more_named->value(rt, frame);
    if (!more.is(Kind::kDict)) rt.fail("the argument after ** must be a mapping, not {}", type_name(more));
    for (const auto& [key, value] : more.as<DictData>().entries) {
      rt.step(1 + out.named.size() / 8);
      if (!key.is_string()) rt.fail("keywords must be strings");
      if (out.find(key.as_string()) != nullptr)
        rt.fail("got multiple values for keyword argument '{}'", key.as_string());
      out.named.emplace_back(key.as_string(), value);
    }
  }
  return out;
}

Value CallExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  const Value function = callee->value(rt, frame);
  CallArguments given = arguments.evaluate(rt, frame);
  rt.line = line;
  return rt.call(function, given);
}

Value CallExpr::call_with_caller(Runtime& rt, const FramePtr& frame, Value caller) const {
  const Value function = callee->value(rt, frame);
  CallArguments given = arguments.evaluate(rt, frame);
  given.named.emplace_back("caller", std::move(caller));
  rt.line = line;
  return rt.call(function, given);
}

Value FilterExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  const Value value = subject->value(rt, frame);
  CallArguments given = arguments.evaluate(rt, frame);
  rt.line = line;
  return rt.apply_filter(name, value, given);
}

Value TestExpr::evaluate(Runtime& rt, const FramePtr& frame) const {
  const Value value = subject->value(rt, frame);
  CallArguments given = arguments.evaluate(rt, frame);
  rt.line = line;
  return Value::boolean(rt.apply_test(name, value, given));
}

}  // namespace upg::jinja
