// Methods and properties of values other than texts, as Python has them. Those that would change a value are refused.
#include <algorithm>
#include <cmath>

#include "text/jinja/builtins.h"

namespace upg::jinja {
namespace {

Value count_in(Runtime& rt, const Value& self, const Arguments& a) {
  int64_t count = 0;
  for (const Value& item : self.items()) count += same(item, a.at(0)) || equal(rt, item, a.at(0));
  return Value::integer(count);
}

Value index_in(Runtime& rt, const Value& self, const Arguments& a) {
  const int64_t size = static_cast<int64_t>(self.items().size());
  const auto place = [&](size_t i, int64_t otherwise) {
    const int64_t given = a.integer(i, otherwise);
    return std::clamp<int64_t>(given < 0 ? std::max<int64_t>(given, -size) + size : given, 0, size);
  };
  const int64_t end = place(2, size);
  for (int64_t i = place(1, 0); i < end; ++i) {
    const Value& item = self.items()[static_cast<size_t>(i)];
    if (same(item, a.at(0)) || equal(rt, item, a.at(0))) return Value::integer(i);
  }
  rt.fail("{} is not in {}", type_name(a.at(0)), type_name(self));
}

template <ViewPart kPart>
Value view(Runtime& rt, const Value& self, const Arguments&) {
  auto data = std::make_shared<ViewData>();
  data->dict = std::static_pointer_cast<DictData>(self.shared());
  data->part = kPart;
  data->depth = rt.deeper(self.depth());
  rt.charge(sizeof(ViewData));
  return {Kind::kView, std::move(data)};
}

Value dict_get(Runtime& rt, const Value& self, const Arguments& a) {
  if (!key_text(a.at(0))) rt.fail("unhashable type: '{}'", type_name(a.at(0)));
  const Value* found = self.as<DictData>().find(a.at(0));
  return found != nullptr ? *found : a.value(1, Value::none());
}

Value dict_copy(Runtime& rt, const Value& self, const Arguments&) {
  return rt.dict(std::make_shared<DictData>(self.as<DictData>()));
}

Value is_integer(Runtime&, const Value& self, const Arguments&) {
  return Value::boolean(std::isfinite(self.as_double()) && std::floor(self.as_double()) == self.as_double());
}

Value bit_length(Runtime&, const Value& self, const Arguments&) {
  uint64_t rest = self.as_int() < 0 ? 0 - static_cast<uint64_t>(self.as_int()) : static_cast<uint64_t>(self.as_int());
  int64_t bits = 0;
  for (; rest != 0; rest >>= 1) ++bits;
  return Value::integer(bits);
}

constexpr Method kListMethods[] = {
    {"append", "*", 0, nullptr},
    {"clear", "*", 0, nullptr},
    {"copy", "", 0, [](Runtime& rt, const Value& self, const Arguments&) { return rt.list(self.items()); }},
    {"count", "value", 1, count_in},
    {"extend", "*", 0, nullptr},
    {"index", "value start stop", 1, index_in},
    {"insert", "*", 0, nullptr},
    {"pop", "*", 0, nullptr},
    {"remove", "*", 0, nullptr},
    {"reverse", "*", 0, nullptr},
    {"sort", "*", 0, nullptr},
};

constexpr Method kTupleMethods[] = {
    {"count", "value", 1, count_in},
    {"index", "value start stop", 1, index_in},
};

constexpr Method kDictMethods[] = {
    {"clear", "*", 0, nullptr},
    {"copy", "", 0, dict_copy},
    {"get", "key default", 1, dict_get},
    {"items", "", 0, view<ViewPart::kItems>},
    {"keys", "", 0, view<ViewPart::kKeys>},
    {"pop", "*", 0, nullptr},
    {"popitem", "*", 0, nullptr},
    {"setdefault", "*", 0, nullptr},
    {"update", "*", 0, nullptr},
    {"values", "", 0, view<ViewPart::kValues>},
};

constexpr Method kIntMethods[] = {
    {"bit_length", "", 0, bit_length},
};

constexpr Method kFloatMethods[] = {
    {"is_integer", "", 0, is_integer},
};

}  // namespace

const Method* find_method(Kind kind, std::string_view name) {
  struct Row {
    Kind kind;
    std::span<const Method> methods;
  };
  static const Row kRows[] = {
      {Kind::kString, kTextMethods}, {Kind::kList, kListMethods}, {Kind::kTuple, kTupleMethods},
      {Kind::kDict, kDictMethods},   {Kind::kInt, kIntMethods},   {Kind::kBool, kIntMethods},
      {Kind::kFloat, kFloatMethods},
  };
  for (const Row& row : kRows) {
    if (row.kind != kind) continue;
    for (const Method& method : row.methods)
      if (method.name == name) return &method;
  }
  return nullptr;
}

bool find_property(const Value& value, std::string_view name, Value& out) {
  if (value.is(Kind::kTuple) && value.as<SequenceData>().group && (name == "grouper" || name == "list")) {
    out = value.items()[name == "list"];
    return true;
  }
  if (value.is_number() && (name == "real" || name == "imag")) {
    const bool whole = value.is_integral();
    if (name == "imag")
      out = whole ? Value::integer(0) : Value::number(0);
    else
      out = value.is(Kind::kBool) ? Value::integer(value.as_int()) : value;
    return true;
  }
  if (value.is_integral() && (name == "numerator" || name == "denominator")) {
    out = Value::integer(name == "numerator" ? value.as_int() : 1);
    return true;
  }
  if (value.is(Kind::kRange) && (name == "start" || name == "stop" || name == "step")) {
    const auto& range = value.as<RangeData>();
    out = Value::integer(name == "start" ? range.start : name == "stop" ? range.stop : range.step);
    return true;
  }
  return false;
}

}  // namespace upg::jinja
