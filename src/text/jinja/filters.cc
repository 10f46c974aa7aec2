// Filters of sequences, numbers and anything; those of texts are in filters_text.cc.
#include <algorithm>
#include <cmath>
#include <limits>

#include "text/jinja/builtins.h"
#include "text/jinja/text_ops.h"

namespace upg::jinja {
namespace {

// "a.0.b" as keys to look up one after the other.
std::vector<Value> attribute_path(Runtime& rt, const Value& attribute) {
  std::vector<Value> path;
  if (attribute.is_none() || attribute.is_undefined()) return path;
  if (!attribute.is_string()) return {attribute};
  for (const std::string_view part : split(attribute.as_string(), ".", -1)) {
    bool too_large = false;
    const auto number = text_is("digit", part) ? parse_integer(part, 10, too_large) : std::nullopt;
    path.push_back(number ? Value::integer(*number) : rt.text(std::string(part)));
  }
  return path;
}

Value follow(Runtime& rt, Value item, const std::vector<Value>& path, const Value& otherwise = Value::none()) {
  for (const Value& key : path) {
    item = rt.item(item, key);
    if (item.is_undefined() && !otherwise.is_none()) item = otherwise;
  }
  return item;
}

Value fold_case(Runtime& rt, const Value& value) {
  return value.is_string() ? rt.text(lower(value.as_string())) : value;
}

// What sorting, grouping and comparing look at in an item.
struct KeyOf {
  std::vector<Value> path;
  bool case_sensitive = false;
  Value otherwise = Value::none();
  Value operator()(Runtime& rt, const Value& item) const {
    const Value found = follow(rt, item, path, otherwise);
    return case_sensitive ? found : fold_case(rt, found);
  }
};

struct Keyed {
  Value key, item;
};

void sort_by_key(Runtime& rt, std::vector<Keyed>& rows, bool reverse) {
  // Stable either way, as in Python: equal items keep their order.
  std::stable_sort(rows.begin(), rows.end(), [&](const Keyed& a, const Keyed& b) {
    return reverse ? ordered(rt, b.key, a.key, Order::kLess) : ordered(rt, a.key, b.key, Order::kLess);
  });
}

Value do_sort(Runtime& rt, const Value& value, const Arguments& a) {
  std::vector<std::vector<Value>> paths;
  const bool by_text = a.has(2) && a.at(2).is_string();
  if (by_text)
    for (const std::string_view part : split(a.at(2).as_string(), ",", -1))
      paths.push_back(attribute_path(rt, rt.text(std::string(part))));
  else
    paths.push_back(attribute_path(rt, a.value(2, Value::none())));
  std::vector<Keyed> rows;
  for (const Value& item : to_vector(rt, value)) {
    std::vector<Value> keys;
    for (const auto& path : paths) keys.push_back(KeyOf{path, a.truth(1, false), Value::none()}(rt, item));
    rows.push_back({rt.list(std::move(keys)), item});
  }
  sort_by_key(rt, rows, a.truth(0, false));
  std::vector<Value> out;
  for (Keyed& row : rows) out.push_back(std::move(row.item));
  return rt.list(std::move(out));
}

Value do_dictsort(Runtime& rt, const Value& value, const Arguments& a) {
  const std::string by = a.string(1, "key");
  if (by != "key" && by != "value") rt.fail("dictsort() can only sort by \"key\" or \"value\"");
  if (!value.is(Kind::kDict)) rt.fail("dictsort() needs a mapping, not {}", type_name(value));
  std::vector<Keyed> rows;
  for (const auto& [key, item] : value.as<DictData>().entries) {
    const Value& sorted = by == "key" ? key : item;
    rows.push_back({a.truth(0, false) ? sorted : fold_case(rt, sorted), rt.tuple({key, item})});
  }
  sort_by_key(rt, rows, a.truth(2, false));
  std::vector<Value> out;
  for (Keyed& row : rows) out.push_back(std::move(row.item));
  return rt.list(std::move(out));
}

Value do_groupby(Runtime& rt, const Value& value, const Arguments& a) {
  const KeyOf key_of{attribute_path(rt, a.at(0)), a.truth(2, false), a.value(1, Value::none())};
  std::vector<Keyed> rows;
  for (const Value& item : to_vector(rt, value)) rows.push_back({key_of(rt, item), item});
  sort_by_key(rt, rows, false);
  std::vector<Value> groups;
  for (size_t begin = 0; begin < rows.size();) {
    size_t end = begin;
    std::vector<Value> items;
    for (; end < rows.size() && equal(rt, rows[end].key, rows[begin].key); ++end) items.push_back(rows[end].item);
    if (end == begin) items.push_back(rows[end++].item);  // nan equals nothing, itself included
    const Value label = key_of.case_sensitive ? rows[begin].key : follow(rt, items[0], key_of.path, key_of.otherwise);
    const Value group = rt.tuple({label, rt.list(std::move(items))});
    group.as<SequenceData>().group = true;
    groups.push_back(group);
    begin = end;
  }
  return rt.list(std::move(groups));
}

Value do_unique(Runtime& rt, const Value& value, const Arguments& a) {
  const KeyOf key_of{attribute_path(rt, a.value(1, Value::none())), a.truth(0, false), Value::none()};
  auto seen = std::make_shared<DictData>();
  return make_iterator(rt, value.depth(), [=, cursor = iterate(rt, value)](Runtime& r, Value& out) {
    while (cursor->next(r, out)) {
      r.step();
      const Value key = key_of(r, out);
      if (!key_text(key)) r.fail("unhashable type: '{}'", type_name(key));
      if (seen->find(key) != nullptr) continue;
      r.charge(4 * sizeof(Value));
      seen->set(key, Value::none());
      return true;
    }
    return false;
  });
}

Value least_or_most(Runtime& rt, const Value& value, const Arguments& a, Order better) {
  const KeyOf key_of{attribute_path(rt, a.value(1, Value::none())), a.truth(0, false), Value::none()};
  const auto cursor = iterate(rt, value);
  Value best, each;
  if (!cursor->next(rt, best)) return rt.undefined("No aggregated item, sequence was empty.");
  Value best_key = key_of(rt, best);
  while (cursor->next(rt, each)) {
    Value key = key_of(rt, each);
    if (!ordered(rt, key, best_key, better)) continue;
    best = each;
    best_key = std::move(key);
  }
  return best;
}

Value do_map(Runtime& rt, const Value& value, const Arguments& a) {
  CallArguments& given = a.rest();
  if (!truth(rt, value)) return make_iterator(rt, 0, [](Runtime&, Value&) { return false; });
  if (given.positional.empty() && given.find("attribute") != nullptr) {
    const std::vector<Value> path = attribute_path(rt, *given.take("attribute"));
    const Value otherwise = given.take("default").value_or(Value::none());
    if (!given.named.empty()) rt.fail("map() got an unexpected keyword argument '{}'", given.named[0].first);
    return make_iterator(rt, value.depth(), [=, cursor = iterate(rt, value)](Runtime& r, Value& out) {
      if (!cursor->next(r, out)) return false;
      out = follow(r, out, path, otherwise);
      return true;
    });
  }
  if (given.positional.empty()) rt.fail("map() needs the name of a filter or an attribute");
  const std::string name = to_text(rt, given.positional[0]);
  given.positional.erase(given.positional.begin());
  return make_iterator(rt, value.depth(), [=, cursor = iterate(rt, value)](Runtime& r, Value& out) {
    if (!cursor->next(r, out)) return false;
    CallArguments arguments = given;
    out = r.apply_filter(name, out, arguments);
    return true;
  });
}

Value select(Runtime& rt, const Value& value, const Arguments& a, bool wanted, bool by_attribute) {
  CallArguments& given = a.rest();
  if (!truth(rt, value)) return make_iterator(rt, 0, [](Runtime&, Value&) { return false; });
  std::vector<Value> path;
  if (by_attribute) {
    if (given.positional.empty()) rt.fail("the name of an attribute is missing");
    path = attribute_path(rt, given.positional[0]);
    given.positional.erase(given.positional.begin());
  }
  std::optional<std::string> test;
  if (!given.positional.empty()) {
    test = to_text(rt, given.positional[0]);
    given.positional.erase(given.positional.begin());
  }
  return make_iterator(rt, value.depth(), [=, cursor = iterate(rt, value)](Runtime& r, Value& out) {
    while (cursor->next(r, out)) {
      r.step();
      const Value seen = follow(r, out, path);
      CallArguments arguments = given;
      if ((test ? r.apply_test(*test, seen, arguments) : truth(r, seen)) == wanted) return true;
    }
    return false;
  });
}

Value do_batch(Runtime& rt, const Value& value, const Arguments& a) {
  const int64_t size = a.integer(0, 0);
  const Value fill = a.value(1, Value::none());
  if (size < 1 || static_cast<uint64_t>(size) > rt.limits.max_range)
    rt.fail("batch() makes groups of 1 to {} items, not {}", rt.limits.max_range, size);
  return make_iterator(rt, std::max(value.depth(), fill.depth()),
                       [=, cursor = iterate(rt, value)](Runtime& r, Value& out) {
                         std::vector<Value> row;
                         Value each;
                         while (row.size() < static_cast<size_t>(size) && cursor->next(r, each)) {
                           r.step();
                           row.push_back(each);
                         }
                         if (row.empty()) return false;
                         if (!fill.is_none()) row.resize(static_cast<size_t>(size), fill);
                         out = r.list(std::move(row));
                         return true;
                       });
}

Value do_slice(Runtime& rt, const Value& value, const Arguments& a) {
  const int64_t count = a.integer(0, 0);
  const Value fill = a.value(1, Value::none());
  if (count < 1 || static_cast<uint64_t>(count) > rt.limits.max_range)
    rt.fail("slice() makes 1 to {} columns, not {}", rt.limits.max_range, count);
  const std::vector<Value> items = to_vector(rt, value);
  const size_t columns = static_cast<size_t>(count), each = items.size() / columns, longer = items.size() % columns;
  std::vector<Value> out;
  size_t at = 0;
  for (size_t column = 0; column < columns; ++column) {
    const size_t size = each + (column < longer ? 1 : 0);
    std::vector<Value> part(items.begin() + static_cast<ptrdiff_t>(at),
                            items.begin() + static_cast<ptrdiff_t>(at + size));
    at += size;
    if (!fill.is_none() && column >= longer) part.push_back(fill);
    out.push_back(rt.list(std::move(part)));
  }
  const Value list = rt.list(std::move(out));
  return rt.iterator(iterate(rt, list), list.depth());
}

Value do_first(Runtime& rt, const Value& value, const Arguments&) {
  Value out;
  return iterate(rt, value)->next(rt, out) ? out : rt.undefined("No first item, sequence was empty.");
}

Value do_reverse(Runtime& rt, const Value& value, const Arguments&) {
  if (value.is_string()) return rt.slice(value, Value::none(), Value::none(), Value::integer(-1));
  if (!is_iterable(value)) rt.fail("reverse() needs something to iterate over, not {}", type_name(value));
  const bool list = value.is(Kind::kIterator);
  std::vector<Value> items = to_vector(rt, value);
  std::reverse(items.begin(), items.end());
  const Value reversed = rt.list(std::move(items));
  return list ? reversed : rt.iterator(iterate(rt, reversed), reversed.depth());
}

Value do_last(Runtime& rt, const Value& value, const Arguments&) {
  if (value.is(Kind::kIterator)) rt.fail("'{}' object is not reversible", type_name(value));
  const std::vector<Value> items = to_vector(rt, value);
  return items.empty() ? rt.undefined("No last item, sequence was empty.") : items.back();
}

Value do_length(Runtime& rt, const Value& value, const Arguments&) {
  const auto length = length_of(rt, value);
  if (!length) rt.fail("object of type '{}' has no len()", type_name(value));
  return Value::integer(*length);
}

Value do_sum(Runtime& rt, const Value& value, const Arguments& a) {
  const std::vector<Value> path = attribute_path(rt, a.value(0, Value::none()));
  Value total = a.value(1, Value::integer(0));
  if (total.is_string()) rt.fail("sum() can't sum strings");
  const auto cursor = iterate(rt, value);
  for (Value each; cursor->next(rt, each);) {
    rt.step();
    total = rt.binary('+', total, follow(rt, each, path));
  }
  return total;
}

// round(x, places) of a float: to the nearest, ties by the exact binary value, as printing does.
double round_float(double value, int64_t places) {
  if (!std::isfinite(value) || places > 300) return value;
  if (places >= 0) return parse_float(fmt::format("{:.{}f}", value, static_cast<int>(places))).value_or(value);
  if (places < -308) return std::copysign(0.0, value);
  const double scale = std::pow(10.0, static_cast<double>(-places));
  return std::nearbyint(value / scale) * scale;
}

int64_t round_int(Runtime& rt, int64_t value, int64_t places) {
  if (places >= 0) return value;
  if (places < -18) return 0;
  int64_t scale = 1;
  for (int64_t i = places; i < 0; ++i) scale *= 10;
  int64_t rest = value % scale;
  int64_t down = value - rest;
  if (rest < 0) {
    rest += scale;
    if (__builtin_sub_overflow(down, scale, &down)) rt.fail("a number needs more than 64 bits");
  }
  const bool up = rest > scale / 2 || (rest == scale / 2 && (down / scale) % 2 != 0);
  if (up && __builtin_add_overflow(down, scale, &down)) rt.fail("a number needs more than 64 bits");
  return down;
}

Value do_round(Runtime& rt, const Value& value, const Arguments& a) {
  const int64_t places = a.integer(0, 0);
  const std::string method = a.string(1, "common");
  if (method != "common" && method != "ceil" && method != "floor") rt.fail("method must be common, ceil or floor");
  if (value.is_undefined()) rt.fail_undefined(value);
  if (!value.is_number()) rt.fail("type {} doesn't define __round__ method", type_name(value));
  if (method == "common") {
    if (value.is_integral()) return Value::integer(round_int(rt, value.as_int(), places));
    return Value::number(round_float(value.as_double(), places));
  }
  const Value scale = rt.binary('p', Value::integer(10), Value::integer(places));
  const Value scaled = rt.binary('*', value, scale);
  if (scaled.is_integral()) return rt.binary('/', scaled, scale);
  const double whole = method == "ceil" ? std::ceil(scaled.as_double()) : std::floor(scaled.as_double());
  if (!std::isfinite(whole) || std::fabs(whole) > 9e18) rt.fail("a number needs more than 64 bits");
  return rt.binary('/', Value::integer(static_cast<int64_t>(whole)), scale);
}

Value do_int(Runtime& rt, const Value& value, const Arguments& a) {
  if (value.is_undefined()) rt.fail_undefined(value);
  const Value otherwise = a.value(0, Value::integer(0));
  if (const auto integer = python_int(rt, value, a.integer(1, 10))) return Value::integer(*integer);
  const auto number = python_float(rt, value);
  if (!number || !std::isfinite(*number)) return otherwise;
  if (std::fabs(*number) >= 9.2e18) rt.fail("a number needs more than 64 bits");
  return Value::integer(static_cast<int64_t>(*number));
}

Value do_float(Runtime& rt, const Value& value, const Arguments& a) {
  if (value.is_undefined()) rt.fail_undefined(value);
  const auto number = python_float(rt, value);
  return number ? Value::number(*number) : a.value(0, Value::number(0));
}

Value do_abs(Runtime& rt, const Value& value, const Arguments&) {
  if (value.is_undefined()) rt.fail_undefined(value);
  if (!value.is_number()) rt.fail("bad operand type for abs(): '{}'", type_name(value));
  if (value.is(Kind::kFloat)) return Value::number(std::fabs(value.as_double()));
  return value.as_int() < 0 ? rt.negate(value, true) : Value::integer(value.as_int());
}

Value do_default(Runtime& rt, const Value& value, const Arguments& a) {
  const bool replace = value.is_undefined() || (a.truth(1, false) && !truth(rt, value));
  return replace ? a.value(0, Value::text("")) : value;
}

Value do_items(Runtime& rt, const Value& value, const Arguments&) {
  if (value.is_undefined()) return make_iterator(rt, 0, [](Runtime&, Value&) { return false; });
  if (!value.is(Kind::kDict)) rt.fail("Can only get item pairs from a mapping.");
  auto view = std::make_shared<ViewData>();
  view->dict = std::static_pointer_cast<DictData>(value.shared());
  view->part = ViewPart::kItems;
  return rt.iterator(iterate(rt, Value(Kind::kView, std::move(view))), value.depth());
}

Value do_attr(Runtime& rt, const Value& value, const Arguments& a) {
  Value out;
  const std::string& name = a.text(0);
  if (value.is_undefined()) rt.fail_undefined(value);
  // Attributes alone, not the keys of a dict.
  if (value.is(Kind::kDict) && find_method(Kind::kDict, name) == nullptr)
    return rt.undefined(fmt::format("'dict object' has no attribute '{}'", name));
  return rt.attribute(value, name);
}

Value do_tojson(Runtime& rt, const Value& value, const Arguments& a) {
  JsonStyle style;
  style.ensure_ascii = a.truth(0, false);
  if (a.given(1)) {
    const Value& indent = a.at(1);
    if (indent.is_string()) {
      style.indent = indent.as_string();
    } else {
      const int64_t width = to_index(rt, indent);
      if (width > 1000) rt.fail("tojson() indents by at most 1000 blanks, not {}", width);
      style.indent = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
    style.item_separator = ",";
  }
  if (a.given(2)) {
    const std::vector<Value> pair = to_vector(rt, a.at(2));
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string())
      rt.fail("tojson() takes two texts as separators");
    style.item_separator = pair[0].as_string();
    style.key_separator = pair[1].as_string();
  }
  style.sort_keys = a.truth(3, false);
  return rt.text(to_json(rt, value, style));
}

constexpr Filter kFilters[] = {
    {"abs", "", 0, do_abs},
    {"attr", "name", 1, do_attr},
    {"batch", "linecount fill_with", 1, do_batch},
    {"count", "", 0, do_length},
    {"d", "default_value boolean", 0, do_default},
    {"default", "default_value boolean", 0, do_default},
    {"dictsort", "case_sensitive by reverse", 0, do_dictsort},
    {"first", "", 0, do_first},
    {"float", "default", 0, do_float},
    {"groupby", "attribute default case_sensitive", 1, do_groupby},
    {"int", "default base", 0, do_int},
    {"items", "", 0, do_items},
    {"last", "", 0, do_last},
    {"length", "", 0, do_length},
    {"list", "", 0, [](Runtime& rt, const Value& v, const Arguments&) { return rt.list(to_vector(rt, v)); }},
    {"map", "*", 0, do_map},
    {"max", "case_sensitive attribute", 0,
     [](Runtime& rt, const Value& v, const Arguments& a) { return least_or_most(rt, v, a, Order::kGreater); }},
    {"min", "case_sensitive attribute", 0,
     [](Runtime& rt, const Value& v, const Arguments& a) { return least_or_most(rt, v, a, Order::kLess); }},
    {"reject", "*", 0, [](Runtime& rt, const Value& v, const Arguments& a) { return select(rt, v, a, false, false); }},
    {"rejectattr", "*", 0,
     [](Runtime& rt, const Value& v, const Arguments& a) { return select(rt, v, a, false, true); }},
    {"reverse", "", 0, do_reverse},
    {"round", "precision method", 0, do_round},
    {"select", "*", 0, [](Runtime& rt, const Value& v, const Arguments& a) { return select(rt, v, a, true, false); }},
    {"selectattr", "*", 0,
     [](Runtime& rt, const Value& v, const Arguments& a) { return select(rt, v, a, true, true); }},
    {"slice", "slices fill_with", 1, do_slice},
    {"sort", "reverse case_sensitive attribute", 0, do_sort},
    {"sum", "attribute start", 0, do_sum},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, do_tojson},
    {"unique", "case_sensitive attribute", 0, do_unique},
};

}  // namespace

const std::span<const Filter> kSequenceFilters{kFilters};

const Filter* find_filter(std::string_view name) {
  for (const auto list : {kSequenceFilters, kTextFilters})
    for (const Filter& filter : list)
      if (filter.name == name) return &filter;
  return nullptr;
}

std::optional<int64_t> python_int(Runtime& rt, const Value& value, int64_t base) {
  if (value.is_string()) {
    bool too_large = false;
    const auto parsed = parse_integer(value.as_string(), base, too_large);
    if (too_large) rt.fail("a number needs more than 64 bits");
    return parsed;
  }
  if (value.is_integral()) return value.as_int();
  if (!value.is(Kind::kFloat) || !std::isfinite(value.as_double())) return std::nullopt;
  if (std::fabs(value.as_double()) >= 9.2e18) rt.fail("a number needs more than 64 bits");
  return static_cast<int64_t>(value.as_double());
}

std::optional<double> python_float(Runtime&, const Value& value) {
  if (value.is_string()) return parse_float(value.as_string());
  if (value.is_number()) return value.as_double();
  return std::nullopt;
}

}  // namespace upg::jinja
