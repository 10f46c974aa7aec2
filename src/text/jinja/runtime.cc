// Budget and errors, making values, and lookups.
#include "text/jinja/runtime.h"

#include <algorithm>

#include "base/error.h"
#include "text/jinja/text_ops.h"
#include "text/unicode.h"

namespace upg::jinja {
namespace {

/// x.upper before it is called.
struct BoundMethod : ObjectData {
  BoundMethod(Value s, const Method& m) : self(std::move(s)), method(m) {}
  std::string_view type_name() const override { return "builtin_function_or_method"; }
  std::string repr(Runtime&) const override {
    return fmt::format("<built-in method {} of {} object>", method.name, jinja::type_name(self));
  }
  bool callable() const override { return true; }
  Value call(Runtime& rt, CallArguments& arguments) override {
    const Arguments bound(rt, method.name, method.parameters, method.required, arguments);
    return method.apply(rt, self, bound);
  }
  Value self;
  const Method& method;
};

// How jinja2 names a value in the story of an undefined attribute.
std::string story_type(const Value& value) {
  if (value.is_none()) return "None";
  const std::string_view name = type_name(value);
  const bool builtin = !value.is(Kind::kObject) && !value.is_markup();
  return builtin ? fmt::format("{} object", name) : fmt::format("jinja2 {} object", name);
}

std::string quoted(std::string_view text) {
  std::string out;
  append_text_repr(out, text.substr(0, byte_offset(text, 200)));
  return out;
}

// Python's own attributes, out of reach for templates.
bool is_internal(std::string_view name) { return name.starts_with("__") && name.ends_with("__") && name.size() > 4; }

// The attribute that Python finds before it looks among the keys; false where there is none.
bool python_attribute(Runtime& rt, const Value& value, std::string_view name, Value& out) {
  if (value.is(Kind::kObject) && value.as<ObjectData>().attribute(rt, name, out)) return true;
  if (is_internal(name)) {
    out = rt.undefined(
        fmt::format("access to attribute {} of {} object is unsafe.", quoted(name), quoted(type_name(value))));
    return true;
  }
  if (const Method* method = find_method(value.kind(), name)) {
    out = method->apply == nullptr ? rt.undefined(fmt::format("access to attribute {} of {} object is unsafe.",
                                                              quoted(name), quoted(type_name(value))))
                                   : rt.object(std::make_shared<BoundMethod>(value, *method));
    if (method->apply != nullptr) out.shared()->depth = rt.deeper(value.depth());
    return true;
  }
  return find_property(value, name, out);
}

// x[key] where Python has it.
bool python_item(Runtime& rt, const Value& value, const Value& key, Value& out) {
  if (value.is(Kind::kDict)) {
    if (!key_text(key)) return false;
    const Value* found = value.as<DictData>().find(key);
    if (found != nullptr) out = *found;
    return found != nullptr;
  }
  if (!key.is_integral()) return false;
  int64_t i = key.as_int();
  const bool sequence = value.is(Kind::kList) || value.is(Kind::kTuple);
  if (!sequence && !value.is_string() && !value.is(Kind::kRange)) return false;
  const int64_t size = length_of(rt, value).value_or(0);
  if (i < 0) i += size;
  if (i < 0 || i >= size) return false;
  if (sequence) {
    out = value.items()[static_cast<size_t>(i)];
  } else if (value.is(Kind::kRange)) {
    out = Value::integer(value.as<RangeData>().at(i));
  } else {
    const std::string& text = value.as_string();
    const size_t at = byte_offset(text, i);
    out = rt.text(text.substr(at, code_point_at(text, at).bytes));
  }
  return true;
}

}  // namespace

Runtime::~Runtime() {
  for (const auto& clear : clears_) clear();
}

void Runtime::raise(const std::string& message) const {
  upg::fail(ErrorCode::kInvalidArgument, "{}:{}: {}", name_, line, message);
}

void Runtime::fail_undefined(const Value& undefined) const {
  raise(undefined.shared() ? undefined.as<UndefinedStory>().text : "a value is undefined");
}

void Runtime::over_steps() const { fail("the template does not come to an end within {} steps", limits.max_steps); }

void Runtime::over_depth() { fail("the template nests calls and expressions deeper than {} levels", limits.max_depth); }

void Runtime::charge(uint64_t bytes) {
  bytes_ += bytes;
  if (bytes_ > limits.max_bytes) fail("the template makes more than {} bytes of values", limits.max_bytes);
}

void Runtime::check_text(uint64_t bytes) const {
  if (bytes > limits.max_string)
    fail("the template makes a text of {} bytes; {} are the most that is allowed", bytes, limits.max_string);
}

void Runtime::write(std::string_view text) {
  step(1 + text.size() / 1024);
  if (sink->size() + text.size() > limits.max_output) fail("the result has more than {} bytes", limits.max_output);
  sink->append(text);
}

Value Runtime::text(std::string text, bool markup) {
  check_text(text.size());
  charge(text.size() + sizeof(TextData));
  return Value::text(std::move(text), markup);
}

uint32_t Runtime::deeper(uint32_t depth) const {
  if (depth >= limits.max_value_depth) fail("values nest deeper than {} levels", limits.max_value_depth);
  return depth + 1;
}

Value Runtime::list(std::vector<Value> items) {
  charge(sizeof(SequenceData) + items.size() * sizeof(Value));
  auto data = std::make_shared<SequenceData>();
  uint32_t most = 0;
  for (const Value& each : items) most = std::max(most, each.depth());
  data->depth = deeper(most);
  data->items = std::move(items);
  return {Kind::kList, std::move(data)};
}

Value Runtime::tuple(std::vector<Value> items) {
  const Value made = list(std::move(items));
  return {Kind::kTuple, made.shared()};
}

Value Runtime::dict(std::shared_ptr<DictData> dict) {
  charge(sizeof(DictData) + dict->entries.size() * (2 * sizeof(Value) + 64));
  uint32_t most = 0;
  for (const auto& [key, value] : dict->entries) most = std::max({most, key.depth(), value.depth()});
  dict->depth = deeper(most);
  return {Kind::kDict, std::move(dict)};
}

Value Runtime::iterator(std::shared_ptr<Cursor> cursor, uint32_t depth) {
  charge(256);
  auto data = std::make_shared<IteratorData>();
  data->cursor = std::move(cursor);
  data->depth = deeper(depth);
  return {Kind::kIterator, std::move(data)};
}

Value Runtime::object(std::shared_ptr<ObjectData> object) {
  charge(256);
  return {Kind::kObject, std::move(object)};
}

Value Runtime::undefined(std::string story) {
  charge(story.size() + sizeof(UndefinedStory));
  auto data = std::make_shared<UndefinedStory>();
  data->text = std::move(story);
  return {Kind::kUndefined, std::move(data)};
}

Value Runtime::attribute(const Value& value, std::string_view name) {
  if (value.is_undefined() && name != "__class__") fail_undefined(value);
  Value out;
  if (python_attribute(*this, value, name, out)) return out;
  if (value.is(Kind::kDict)) {
    const Value* found = value.as<DictData>().find(name);
    if (found != nullptr) return *found;
  }
  return undefined(fmt::format("'{}' has no attribute {}", story_type(value), quoted(name)));
}

Value Runtime::item(const Value& value, const Value& key) {
  if (value.is_undefined()) fail_undefined(value);
  Value out;
  if (python_item(*this, value, key, out)) return out;
  if (key.is_string() && python_attribute(*this, value, key.as_string(), out)) return out;
  if (key.is_string())
    return undefined(fmt::format("'{}' has no attribute {}", story_type(value), quoted(key.as_string())));
  return undefined(fmt::format("{} has no element {}", story_type(value),
                               key.is_integral() ? std::to_string(key.as_int()) : std::string(type_name(key))));
}

int64_t to_index(Runtime& rt, const Value& value) {
  if (value.is_undefined()) rt.fail_undefined(value);
  if (!value.is_integral()) rt.fail("'{}' object cannot be interpreted as an integer", type_name(value));
  return value.as_int();
}

Value Runtime::slice(const Value& value, const Value& start, const Value& stop, const Value& step_value) {
  if (value.is_undefined()) fail_undefined(value);
  const bool sequence = value.is(Kind::kList) || value.is(Kind::kTuple);
  if (!sequence && !value.is_string() && !value.is(Kind::kRange))
    fail("'{}' object cannot be sliced", type_name(value));
  for (const Value* each : {&start, &stop, &step_value})
    if (!each->is_none() && !each->is_integral())
      fail("slice indices must be integers or None, not {}", type_name(*each));
  const int64_t stride = step_value.is_none() ? 1 : step_value.as_int();
  if (stride == 0) fail("slice step cannot be zero");
  const int64_t size = length_of(*this, value).value_or(0);
  const int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? size : size - 1;
  const auto place = [&](const Value& index, int64_t otherwise) {
    if (index.is_none()) return otherwise;
    const int64_t i = index.as_int() < 0 ? std::max(index.as_int(), -size - 1) + size : index.as_int();
    return std::clamp(i, low, high);
  };
  RangeData range;
  range.start = place(start, stride > 0 ? low : high);
  range.stop = place(stop, stride > 0 ? high : low);
  range.step = std::clamp<int64_t>(stride, -size - 1, size + 1);
  const int64_t count = range.size();
  step(static_cast<uint64_t>(count) / 16);
  if (value.is(Kind::kRange)) {
    const auto& from = value.as<RangeData>();
    auto out = std::make_shared<RangeData>();
    int64_t first = 0, last = 0;
    const bool fits = !__builtin_mul_overflow(range.start, from.step, &first) &&
                      !__builtin_mul_overflow(range.stop, from.step, &last) &&
                      !__builtin_add_overflow(from.start, first, &out->start) &&
                      !__builtin_add_overflow(from.start, last, &out->stop) &&
                      !__builtin_mul_overflow(from.step, range.step, &out->step);
    if (!fits) fail("the numbers of a range need more than 64 bits");
    return {Kind::kRange, std::move(out)};
  }
  if (sequence) {
    charge(static_cast<uint64_t>(count) * sizeof(Value));
    std::vector<Value> items;
    items.reserve(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) items.push_back(value.items()[static_cast<size_t>(range.at(i))]);
    return value.is(Kind::kList) ? list(std::move(items)) : tuple(std::move(items));
  }
  const std::string& text = value.as_string();
  if (count == 0) return this->text("", value.is_markup());
  if (range.step == 1) {
    const size_t begin = byte_offset(text, range.start);
    const std::string_view rest = std::string_view(text).substr(begin);
    return this->text(std::string(rest.substr(0, byte_offset(rest, count))), value.is_markup());
  }
  std::vector<size_t> begins;
  charge(static_cast<uint64_t>(size) * sizeof(size_t));
  for (size_t at = 0; at < text.size(); at += code_point_at(text, at).bytes) begins.push_back(at);
  std::string out_text;
  for (int64_t i = 0; i < count; ++i) {
    const size_t at = begins[static_cast<size_t>(range.at(i))];
    out_text.append(text, at, code_point_at(text, at).bytes);
  }
  return this->text(std::move(out_text), value.is_markup());
}

Value Runtime::call(const Value& callee, CallArguments& arguments) {
  const Level level(*this);
  step();
  if (callee.is_undefined()) fail_undefined(callee);
  if (!callee.is(Kind::kObject) || !callee.as<ObjectData>().callable())
    fail("'{}' object is not callable", type_name(callee));
  const Value kept = callee;  // the callee may be what its own call replaces
  return kept.as<ObjectData>().call(*this, arguments);
}

Value Runtime::apply_filter(std::string_view name, const Value& subject, CallArguments& arguments) {
  const Filter* filter = find_filter(name);
  if (filter == nullptr) fail("there is no filter named '{}'", name);
  step();
  const Arguments bound(*this, filter->name, filter->parameters, filter->required, arguments);
  return filter->apply(*this, subject, bound);
}

bool Runtime::apply_test(std::string_view name, const Value& subject, CallArguments& arguments) {
  const Test* test = find_test(name);
  if (test == nullptr) fail("there is no test named '{}'", name);
  step();
  const Arguments bound(*this, test->name, test->parameters, test->required, arguments);
  return test->apply(*this, subject, bound);
}

Arguments::Arguments(Runtime& rt, std::string_view function, std::string_view parameters, size_t required,
                     CallArguments& arguments)
    : rt_(rt), function_(function), rest_(arguments) {
  size_t used = 0;
  bool open = false;
  for (const std::string_view name : split(parameters, {}, -1)) {
    if (name == "*") {
      open = true;
      break;
    }
    std::optional<Value> named = arguments.take(name);
    if (used < arguments.positional.size()) {
      if (named) rt.fail("{}() got multiple values for argument '{}'", function, name);
      slots_.emplace_back(std::move(arguments.positional[used++]));
    } else {
      slots_.push_back(std::move(named));
    }
    if (!slots_.back() && slots_.size() <= required) rt.fail("{}() missing required argument '{}'", function, name);
  }
  arguments.positional.erase(arguments.positional.begin(), arguments.positional.begin() + static_cast<ptrdiff_t>(used));
  if (open) return;
  if (!arguments.positional.empty())
    rt.fail("{}() takes at most {} arguments, {} were given", function, slots_.size(),
            slots_.size() + arguments.positional.size());
  if (!arguments.named.empty())
    rt.fail("{}() got an unexpected keyword argument '{}'", function, arguments.named[0].first);
}

int64_t Arguments::integer(size_t i, int64_t otherwise) const { return has(i) ? to_index(rt_, at(i)) : otherwise; }

std::string Arguments::string(size_t i, std::string otherwise) const {
  return has(i) ? to_text(rt_, at(i)) : std::move(otherwise);
}

const std::string& Arguments::text(size_t i) const {
  if (at(i).is_undefined()) rt_.fail_undefined(at(i));
  if (!at(i).is_string()) rt_.fail("{}() argument {} must be str, not {}", function_, i + 1, jinja::type_name(at(i)));
  return at(i).as_string();
}

}  // namespace upg::jinja
