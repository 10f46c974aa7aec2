// What can stand after `is`.
#include <algorithm>
#include <iterator>

#include "text/jinja/builtins.h"
#include "text/jinja/text_ops.h"

namespace upg::jinja {
namespace {

bool divides(Runtime& rt, const Value& value, const Value& by, int64_t rest) {
  return equal(rt, rt.binary('%', value, by), Value::integer(rest));
}

bool hashable(Runtime& rt, const Value& value) {
  if (!key_text(value)) rt.fail("unhashable type: '{}'", type_name(value));
  return true;
}

bool is_sequence(Runtime& rt, const Value& value) {
  const bool indexed = value.is_undefined() || value.is_string() || value.is(Kind::kList) || value.is(Kind::kTuple) ||
                       value.is(Kind::kDict) || value.is(Kind::kRange);
  return indexed && length_of(rt, value).has_value();
}

template <Order kOrder>
bool compare(Runtime& rt, const Value& value, const Arguments& a) {
  return ordered(rt, value, a.at(0), kOrder);
}
bool is_equal(Runtime& rt, const Value& value, const Arguments& a) { return equal(rt, value, a.at(0)); }
bool is_different(Runtime& rt, const Value& value, const Arguments& a) { return !equal(rt, value, a.at(0)); }

#define UPG_JINJA_TEST(condition)                               \
  [](Runtime& rt, const Value& v, const Arguments& a) -> bool { \
    (void)rt, (void)a, (void)v;                                 \
    return condition;                                           \
  }

constexpr Test kTests[] = {
    {"odd", "", 0, UPG_JINJA_TEST(divides(rt, v, Value::integer(2), 1))},
    {"even", "", 0, UPG_JINJA_TEST(divides(rt, v, Value::integer(2), 0))},
    {"divisibleby", "num", 1, UPG_JINJA_TEST(divides(rt, v, a.at(0), 0))},
    {"defined", "", 0, UPG_JINJA_TEST(!v.is_undefined())},
    {"undefined", "", 0, UPG_JINJA_TEST(v.is_undefined())},
    {"filter", "", 0, UPG_JINJA_TEST(hashable(rt, v) && v.is_string() && find_filter(v.as_string()) != nullptr)},
    {"test", "", 0, UPG_JINJA_TEST(hashable(rt, v) && v.is_string() && find_test(v.as_string()) != nullptr)},
    {"none", "", 0, UPG_JINJA_TEST(v.is_none())},
    {"boolean", "", 0, UPG_JINJA_TEST(v.is(Kind::kBool))},
    {"false", "", 0, UPG_JINJA_TEST(v.is(Kind::kBool) && !v.as_bool())},
    {"true", "", 0, UPG_JINJA_TEST(v.is(Kind::kBool) && v.as_bool())},
    {"integer", "", 0, UPG_JINJA_TEST(v.is(Kind::kInt))},
    {"float", "", 0, UPG_JINJA_TEST(v.is(Kind::kFloat))},
    {"lower", "", 0, UPG_JINJA_TEST(text_is("lower", to_text(rt, v)))},
    {"upper", "", 0, UPG_JINJA_TEST(text_is("upper", to_text(rt, v)))},
    {"string", "", 0, UPG_JINJA_TEST(v.is_string())},
    {"mapping", "", 0, UPG_JINJA_TEST(v.is(Kind::kDict))},
    {"number", "", 0, UPG_JINJA_TEST(v.is_number())},
    {"sequence", "", 0, UPG_JINJA_TEST(is_sequence(rt, v))},
    {"iterable", "", 0, UPG_JINJA_TEST(is_iterable(v))},
    {"callable", "", 0, UPG_JINJA_TEST(v.is_undefined() || (v.is(Kind::kObject) && v.as<ObjectData>().callable()))},
    {"sameas", "other", 1, UPG_JINJA_TEST(same(v, a.at(0)))},
    {"escaped", "", 0, UPG_JINJA_TEST(v.is_markup())},
    {"in", "seq", 1, UPG_JINJA_TEST(contains(rt, a.at(0), v))},
    {"==", "b", 1, is_equal},
    {"eq", "b", 1, is_equal},
    {"equalto", "b", 1, is_equal},
    {"!=", "b", 1, is_different},
    {"ne", "b", 1, is_different},
    {">", "b", 1, compare<Order::kGreater>},
    {"gt", "b", 1, compare<Order::kGreater>},
    {"greaterthan", "b", 1, compare<Order::kGreater>},
    {">=", "b", 1, compare<Order::kGreaterEqual>},
    {"ge", "b", 1, compare<Order::kGreaterEqual>},
    {"<", "b", 1, compare<Order::kLess>},
    {"lt", "b", 1, compare<Order::kLess>},
    {"lessthan", "b", 1, compare<Order::kLess>},
    {"<=", "b", 1, compare<Order::kLessEqual>},
    {"le", "b", 1, compare<Order::kLessEqual>},
};

}  // namespace

const Test* find_test(std::string_view name) {
  const auto* found = std::find_if(std::begin(kTests), std::end(kTests), [&](const Test& t) { return t.name == name; });
  return found == std::end(kTests) ? nullptr : found;
}

}  // namespace upg::jinja
