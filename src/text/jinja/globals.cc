// Functions that every template has.
#include <algorithm>
#include <ctime>
#include <iterator>

#include "text/jinja/builtins.h"

namespace upg::jinja {
namespace {

struct Function : ObjectData {
  explicit Function(const Global& g) : global(g) {}
  std::string_view type_name() const override { return "function"; }
  std::string repr(Runtime&) const override { return fmt::format("<function {}>", global.name); }
  bool callable() const override { return true; }
  Value call(Runtime& rt, CallArguments& arguments) override {
    const Arguments bound(rt, global.name, global.parameters, global.required, arguments);
    return global.apply(rt, bound);
  }
  const Global& global;
};

struct Joiner : ObjectData {
  std::string_view type_name() const override { return "Joiner"; }
  bool callable() const override { return true; }
  Value call(Runtime&, CallArguments&) override {
    const bool first = !used;
    used = true;
    return first ? Value::text("") : separator;
  }
  Value separator;
  bool used = false;
};

struct Cycler : ObjectData, std::enable_shared_from_this<Cycler> {
  std::string_view type_name() const override { return "Cycler"; }
  bool attribute(Runtime& rt, std::string_view name, Value& out) const override;
  std::vector<Value> items;
  mutable size_t at = 0;
};

/// cycler.next and cycler.reset.
struct CyclerMethod : ObjectData {
  std::string_view type_name() const override { return "method"; }
  bool callable() const override { return true; }
  Value call(Runtime&, CallArguments&) override {
    const auto& cycler = owner.as<Cycler>();
    if (!advance) {
      cycler.at = 0;
      return Value::none();
    }
    Value current = cycler.items[cycler.at];
    cycler.at = (cycler.at + 1) % cycler.items.size();
    return current;
  }
  Value owner;
  bool advance = false;
};

/// x.next with x a cycler: jinja2 has it as a value, so it is one here too.
bool Cycler::attribute(Runtime& rt, std::string_view name, Value& out) const {
  if (name == "current") {
    out = items[at];
    return true;
  }
  if (name == "pos") {
    out = Value::integer(static_cast<int64_t>(at));
    return true;
  }
  if (name != "next" && name != "reset") return false;
  auto method = std::make_shared<CyclerMethod>();
  auto& self = const_cast<Cycler&>(*this);
  method->owner = Value(Kind::kObject, self.shared_from_this());
  method->advance = name == "next";
  method->depth = rt.deeper(depth);
  out = rt.object(std::move(method));
  return true;
}

Value make_cycler(Runtime& rt, const Arguments& a) {
  if (a.rest().positional.empty()) rt.fail("cycler() needs at least one item");
  auto cycler = std::make_shared<Cycler>();
  cycler->items = a.rest().positional;
  uint32_t most = 0;
  for (const Value& item : cycler->items) most = std::max(most, item.depth());
  cycler->depth = rt.deeper(most);
  rt.charge(cycler->items.size() * sizeof(Value));
  return rt.object(std::move(cycler));
}

Value make_joiner(Runtime& rt, const Arguments& a) {
  auto joiner = std::make_shared<Joiner>();
  joiner->separator = a.value(0, Value::text(", "));
  joiner->depth = rt.deeper(joiner->separator.depth());
  return rt.object(std::move(joiner));
}

Value make_namespace(Runtime& rt, const Arguments& a) {
  auto space = std::make_shared<NamespaceData>();
  space->attributes = make_dict(rt, a);
  for (const auto& entry : space->attributes->entries)
    if (entry.first.is_string() && entry.first.as_string().starts_with('_'))
      rt.fail("templates cannot store attributes on a namespace whose names begin with '_': '{}'",
              entry.first.as_string());
  rt.at_end([space] { space->attributes->entries.clear(); });  // it may hold itself
  return rt.object(std::move(space));
}

Value make_range(Runtime& rt, const Arguments& a) {
  constexpr int64_t kMost = 1'000'000'000'000'000'000;  // so that sums below cannot overflow
  auto range = std::make_shared<RangeData>();
  const bool only_stop = !a.has(1);
  range->start = only_stop ? 0 : a.integer(0, 0);
  range->stop = only_stop ? a.integer(0, 0) : a.integer(1, 0);
  range->step = a.integer(2, 1);
  if (range->step == 0) rt.fail("range() arg 3 must not be zero");
  for (const int64_t each : {range->start, range->stop, range->step})
    if (each > kMost || each < -kMost) rt.fail("range() takes numbers up to {}, not {}", kMost, each);
  if (static_cast<uint64_t>(range->size()) > rt.limits.max_range)
    rt.fail("the range has {} numbers; {} are the most that is allowed", range->size(), rt.limits.max_range);
  rt.charge(sizeof(RangeData));
  return {Kind::kRange, std::move(range)};
}

Value raise_exception(Runtime& rt, const Arguments& a) { rt.raise(a.string(0, "")); }

Value strftime_now(Runtime& rt, const Arguments& a) {
  const auto since = rt.now.time_since_epoch();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(since - seconds).count();
  const std::time_t time = static_cast<std::time_t>(seconds.count());
  std::tm local{};
  localtime_r(&time, &local);
  const std::string& format = a.text(0);
  // One directive at a time: each has a short result, and Python has some of its own.
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    rt.step();
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    size_t end = i + 1;
    while (end < format.size() &&
           (format[end] == '-' || format[end] == '_' || format[end] == '0' || format[end] == '^' || format[end] == '#'))
      ++end;
    const std::string directive = format.substr(i, end + 1 - i);
    i = std::min(end, format.size() - 1);
    if (directive == "%f") {
      out += fmt::format("{:06}", micros);
    } else if (directive != "%z" && directive != "%Z") {  // the time is naive: it has no zone
      char buffer[256];
      out.append(buffer, std::strftime(buffer, sizeof buffer, directive.c_str(), &local));
    }
    rt.check_text(out.size());
  }
  return rt.text(std::move(out));
}

constexpr Global kGlobals[] = {
    {"range", "start stop step", 1, make_range},
    {"dict", "*", 0, [](Runtime& rt, const Arguments& a) { return rt.dict(make_dict(rt, a)); }},
    {"namespace", "*", 0, make_namespace},
    {"cycler", "*", 0, make_cycler},
    {"joiner", "sep", 0, make_joiner},
    {"raise_exception", "message", 1, raise_exception},
    {"strftime_now", "format", 1, strftime_now},
};

}  // namespace

std::shared_ptr<DictData> make_dict(Runtime& rt, const Arguments& arguments) {
  const CallArguments& given = arguments.rest();
  auto dict = std::make_shared<DictData>();
  if (given.positional.size() > 1) rt.fail("dict expected at most 1 argument, got {}", given.positional.size());
  const auto set = [&](const Value& key, const Value& value) {
    rt.step();
    if (!key_text(key)) rt.fail("unhashable type: '{}'", type_name(key));
    dict->set(key, value);
  };
  if (!given.positional.empty() && given.positional[0].is(Kind::kDict)) {
    for (const auto& [key, value] : given.positional[0].as<DictData>().entries) set(key, value);
  } else if (!given.positional.empty()) {
    for (const Value& each : to_vector(rt, given.positional[0])) {
      if (!is_iterable(each)) rt.fail("cannot convert dictionary update sequence element to a sequence");
      const std::vector<Value> pair = to_vector(rt, each);
      if (pair.size() != 2) rt.fail("dictionary update sequence element has length {}; 2 is required", pair.size());
      set(pair[0], pair[1]);
    }
  }
  for (const auto& [name, value] : given.named) set(rt.text(name), value);
  return dict;
}

std::optional<Value> find_global(Runtime& rt, std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kGlobals), std::end(kGlobals), [&](const Global& each) { return each.name == name; });
  if (found == std::end(kGlobals)) return std::nullopt;
  return rt.object(std::make_shared<Function>(*found));
}

}  // namespace upg::jinja
