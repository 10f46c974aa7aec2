// Making and comparing values. Printing is in value_text.cc.
#include "text/jinja/value.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "text/jinja/runtime.h"
#include "text/jinja/text_ops.h"
#include "text/unicode.h"

namespace upg::jinja {
namespace {

constexpr size_t kSmallDict = 8;

struct VectorCursor : Cursor {
  explicit VectorCursor(Value v) : owner(std::move(v)) {}
  bool next(Runtime&, Value& out) override {
    if (at >= owner.items().size()) return false;
    out = owner.items()[at++];
    return true;
  }
  Value owner;
  size_t at = 0;
};

struct TextCursor : Cursor {
  explicit TextCursor(Value v) : owner(std::move(v)) {}
  bool next(Runtime& rt, Value& out) override {
    const std::string& text = owner.as_string();
    if (at >= text.size()) return false;
    const size_t bytes = code_point_at(text, at).bytes;
    out = rt.text(text.substr(at, bytes));
    at += bytes;
    return true;
  }
  Value owner;
  size_t at = 0;
};

struct DictCursor : Cursor {
  DictCursor(std::shared_ptr<DictData> d, ViewPart p) : dict(std::move(d)), part(p) {}
  bool next(Runtime& rt, Value& out) override {
    if (at >= dict->entries.size()) return false;
    const auto& [key, value] = dict->entries[at++];
    out = part == ViewPart::kKeys ? key : part == ViewPart::kValues ? value : rt.tuple({key, value});
    return true;
  }
  std::shared_ptr<DictData> dict;
  ViewPart part;
  size_t at = 0;
};

struct RangeCursor : Cursor {
  explicit RangeCursor(const RangeData& r) : range(r), size(r.size()) {}
  bool next(Runtime&, Value& out) override {
    if (at >= size) return false;
    out = Value::integer(range.at(at++));
    return true;
  }
  RangeData range;
  int64_t size;
  int64_t at = 0;
};

struct EmptyCursor : Cursor {
  bool next(Runtime&, Value&) override { return false; }
};

// -1, 0, 1, or 2 for nan. Exact: a long double holds every int64 and every double.
int compare_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.as_int() < b.as_int() ? -1 : a.as_int() > b.as_int();
  const auto wide = [](const Value& v) {
    return v.is_integral() ? static_cast<long double>(v.as_int()) : static_cast<long double>(v.as_double());
  };
  const long double x = wide(a), y = wide(b);
  if (std::isnan(x) || std::isnan(y)) return 2;
  return x < y ? -1 : x > y;
}

bool holds(int sign, Order order) {
  if (sign == 2) return false;
  if (order == Order::kLess) return sign < 0;
  if (order == Order::kLessEqual) return sign <= 0;
  return order == Order::kGreater ? sign > 0 : sign >= 0;
}

bool equal_dicts(Runtime& rt, const DictData& a, const DictData& b) {
  if (a.entries.size() != b.entries.size()) return false;
  return std::all_of(a.entries.begin(), a.entries.end(), [&](const auto& entry) {
    const Value* other = b.find(entry.first);
    return other != nullptr && (same(entry.second, *other) || equal(rt, entry.second, *other));
  });
}

}  // namespace

Value Value::number(double d) {
  Value out(Kind::kFloat);
  out.double_ = d;
  return out;
}

Value Value::text(std::string text, bool markup) {
  auto data = std::make_shared<TextData>();
  data->text = std::move(text);
  data->markup = markup;
  return {Kind::kString, std::move(data)};
}

bool Value::is_markup() const { return is_string() && as<TextData>().markup; }
double Value::as_double() const { return kind_ == Kind::kFloat ? double_ : static_cast<double>(integer_); }
const std::string& Value::as_string() const { return as<TextData>().text; }
const std::vector<Value>& Value::items() const { return as<SequenceData>().items; }

std::optional<std::string> key_text(const Value& key) {
  switch (key.kind()) {
    case Kind::kUndefined:
      return "u";
    case Kind::kNone:
      return "0";
    case Kind::kBool:
    case Kind::kInt:
      return "n" + std::to_string(key.as_int());
    case Kind::kFloat: {
      const double d = key.as_double();
      if (d == std::floor(d) && std::fabs(d) < 9e18) return "n" + std::to_string(static_cast<int64_t>(d));
      return "f" + std::to_string(std::bit_cast<uint64_t>(d));
    }
    case Kind::kString:
      return "s" + key.as_string();
    case Kind::kTuple: {
      std::string out = "t";
      for (const Value& each : key.items()) {
        const auto part = key_text(each);
        if (!part) return std::nullopt;
        out += std::to_string(part->size()) + ":" + *part;
      }
      return out;
    }
    case Kind::kRange: {
      const auto& range = key.as<RangeData>();
      return "r" + std::to_string(range.start) + "," + std::to_string(range.size()) + "," + std::to_string(range.step);
    }
    case Kind::kIterator:
    case Kind::kObject:
      return "p" + std::to_string(reinterpret_cast<uintptr_t>(key.shared().get()));
    case Kind::kList:
    case Kind::kDict:
    case Kind::kView:
      break;
  }
  return std::nullopt;
}

size_t DictData::locate(const Value& key) const {
  const std::string text = key_text(key).value_or("");
  if (!index_.empty()) {
    const auto found = index_.find(text);
    return found == index_.end() ? entries.size() : found->second;
  }
  size_t i = 0;
  for (; i < entries.size(); ++i) {
    const Value& each = entries[i].first;
    if (each.is_string() != key.is_string()) continue;
    if (each.is_string() ? each.as_string() == key.as_string() : key_text(each) == text) break;
  }
  return i;
}

const Value* DictData::find(const Value& key) const {
  const size_t i = locate(key);
  return i == entries.size() ? nullptr : &entries[i].second;
}

const Value* DictData::find(std::string_view key) const {
  if (!index_.empty()) {
    const auto found = index_.find("s" + std::string(key));
    return found == index_.end() ? nullptr : &entries[found->second].second;
  }
  for (const auto& [each, value] : entries)
    if (each.is_string() && each.as_string() == key) return &value;
  return nullptr;
}

void DictData::set(const Value& key, Value value) {
  if (const size_t i = locate(key); i < entries.size()) {
    entries[i].second = std::move(value);
    return;
  }
  entries.emplace_back(key, std::move(value));
  if (!index_.empty())
    index_.emplace(*key_text(key), entries.size() - 1);
  else if (entries.size() > kSmallDict)
    index_entries();
}

void DictData::index_entries() {
  for (size_t i = 0; i < entries.size(); ++i) index_.emplace(key_text(entries[i].first).value_or(""), i);
}

int64_t RangeData::size() const {
  if (step > 0 ? start >= stop : start <= stop) return 0;
  const auto distance = step > 0 ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                                 : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : 0 - static_cast<uint64_t>(step);
  return static_cast<int64_t>(std::min<uint64_t>((distance - 1) / stride + 1, INT64_MAX));
}

Value ObjectData::call(Runtime& rt, CallArguments&) { rt.fail("'{}' object is not callable", type_name()); }
bool ObjectData::attribute(Runtime&, std::string_view, Value&) const { return false; }
std::string ObjectData::repr(Runtime&) const { return fmt::format("<{}>", type_name()); }

bool NamespaceData::attribute(Runtime&, std::string_view name, Value& out) const {
  const Value* found = attributes->find(name);
  if (found == nullptr) return false;
  out = *found;
  return true;
}

std::string NamespaceData::repr(Runtime& rt) const {
  return "<TemplateNamespace " + jinja::repr(rt, Value(Kind::kDict, attributes)) + ">";
}

const Value* CallArguments::find(std::string_view name) const {
  for (const auto& [each, value] : named)
    if (each == name) return &value;
  return nullptr;
}

std::optional<Value> CallArguments::take(std::string_view name) {
  const auto found = std::find_if(named.begin(), named.end(), [&](const auto& each) { return each.first == name; });
  if (found == named.end()) return std::nullopt;
  Value value = std::move(found->second);
  named.erase(found);
  return value;
}

std::string_view type_name(const Value& value) {
  static constexpr std::string_view kNames[] = {"Undefined", "NoneType", "bool", "int",       "float", "str",
                                                "list",      "tuple",    "dict", "dict_view", "range", "generator"};
  if (value.is(Kind::kObject)) return value.as<ObjectData>().type_name();
  if (value.is_markup()) return "Markup";
  if (value.is(Kind::kView)) {
    static constexpr std::string_view kViews[] = {"dict_keys", "dict_values", "dict_items"};
    return kViews[static_cast<size_t>(value.as<ViewData>().part)];
  }
  return kNames[static_cast<size_t>(value.kind())];
}

bool truth(Runtime& rt, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return value.as_int() != 0;
    case Kind::kFloat:
      return value.as_double() != 0;
    case Kind::kIterator:
      return true;
    default:
      return length_of(rt, value).value_or(1) != 0;
  }
}

bool same(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  if (a.is_undefined()) return a.shared() == b.shared();
  if (a.is_integral()) return a.as_int() == b.as_int();
  if (a.is_none()) return true;
  if (a.is(Kind::kFloat)) return std::bit_cast<uint64_t>(a.as_double()) == std::bit_cast<uint64_t>(b.as_double());
  return a.shared() == b.shared();
}

bool equal(Runtime& rt, const Value& a, const Value& b) {
  rt.step();
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.kind() != b.kind()) {
    // Views of keys and of items are sets to Python, but two of them are rarely compared.
    return false;
  }
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      rt.step(std::min(a.as_string().size(), b.as_string().size()) / 64);
      return a.as_string() == b.as_string();
    case Kind::kList:
    case Kind::kTuple:
      return a.items().size() == b.items().size() &&
             std::equal(a.items().begin(), a.items().end(), b.items().begin(),
                        [&](const Value& x, const Value& y) { return same(x, y) || equal(rt, x, y); });
    case Kind::kDict:
      return equal_dicts(rt, a.as<DictData>(), b.as<DictData>());
    case Kind::kRange: {
      const auto &x = a.as<RangeData>(), &y = b.as<RangeData>();
      const int64_t size = x.size();
      return size == y.size() && (size == 0 || (x.start == y.start && (size == 1 || x.step == y.step)));
    }
    case Kind::kView: {
      const auto &x = a.as<ViewData>(), &y = b.as<ViewData>();
      if (x.part != y.part || x.part == ViewPart::kValues) return a.shared() == b.shared();
      if (x.dict->entries.size() != y.dict->entries.size()) return false;
      if (x.part == ViewPart::kItems) return equal_dicts(rt, *x.dict, *y.dict);
      return std::all_of(x.dict->entries.begin(), x.dict->entries.end(),
                         [&](const auto& entry) { return y.dict->find(entry.first) != nullptr; });
    }
    default:
      return a.shared() == b.shared();
  }
}

bool ordered(Runtime& rt, const Value& a, const Value& b, Order order) {
  static constexpr std::string_view kSigns[] = {"<", "<=", ">", ">="};
  rt.step();
  if (a.is_undefined()) rt.fail_undefined(a);
  if (b.is_undefined()) rt.fail_undefined(b);
  if (a.is_number() && b.is_number()) return holds(compare_numbers(a, b), order);
  if (a.is_string() && b.is_string()) {
    rt.step(std::min(a.as_string().size(), b.as_string().size()) / 64);
    const int sign = a.as_string().compare(b.as_string());
    return holds(sign < 0 ? -1 : sign > 0, order);
  }
  if (a.kind() == b.kind() && (a.is(Kind::kList) || a.is(Kind::kTuple))) {
    const auto &x = a.items(), &y = b.items();
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!same(x[i], y[i]) && !equal(rt, x[i], y[i])) return ordered(rt, x[i], y[i], order);
    return holds(x.size() < y.size() ? -1 : x.size() > y.size(), order);
  }
  rt.fail("'{}' not supported between instances of '{}' and '{}'", kSigns[static_cast<size_t>(order)], type_name(a),
          type_name(b));
}

bool contains(Runtime& rt, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (item.is_undefined()) rt.fail_undefined(item);
    if (!item.is_string()) rt.fail("'in <string>' requires string as left operand, not {}", type_name(item));
    rt.step(container.as_string().size() / 16);
    return container.as_string().find(item.as_string()) != std::string::npos;
  }
  const bool keys = container.is(Kind::kView) && container.as<ViewData>().part == ViewPart::kKeys;
  if (container.is(Kind::kDict) || keys) {
    if (!key_text(item)) rt.fail("unhashable type: '{}'", type_name(item));
    return (keys ? *container.as<ViewData>().dict : container.as<DictData>()).find(item) != nullptr;
  }
  if (!is_iterable(container)) rt.fail("argument of type '{}' is not iterable", type_name(container));
  const auto cursor = iterate(rt, container);
  for (Value each; cursor->next(rt, each);)
    if (same(each, item) || equal(rt, each, item)) return true;
  return false;
}

std::optional<int64_t> length_of(Runtime& rt, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      rt.step(value.as_string().size() / 64);
      return count_code_points(value.as_string());
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.items().size());
    case Kind::kDict:
      return static_cast<int64_t>(value.as<DictData>().entries.size());
    case Kind::kView:
      return static_cast<int64_t>(value.as<ViewData>().dict->entries.size());
    case Kind::kRange:
      return value.as<RangeData>().size();
    case Kind::kObject:
      return value.as<ObjectData>().length(rt);
    default:
      return std::nullopt;
  }
}

bool is_iterable(const Value& value) {
  const Kind kind = value.kind();
  return kind == Kind::kUndefined || (kind >= Kind::kString && kind != Kind::kObject);
}

std::shared_ptr<Cursor> iterate(Runtime& rt, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return std::make_shared<EmptyCursor>();
    case Kind::kString:
      return std::make_shared<TextCursor>(value);
    case Kind::kList:
    case Kind::kTuple:
      return std::make_shared<VectorCursor>(value);
    case Kind::kDict:
      return std::make_shared<DictCursor>(std::static_pointer_cast<DictData>(value.shared()), ViewPart::kKeys);
    case Kind::kView:
      return std::make_shared<DictCursor>(value.as<ViewData>().dict, value.as<ViewData>().part);
    case Kind::kRange:
      return std::make_shared<RangeCursor>(value.as<RangeData>());
    case Kind::kIterator:
      return value.as<IteratorData>().cursor;
    default:
      rt.fail("'{}' object is not iterable", type_name(value));
  }
}

std::vector<Value> to_vector(Runtime& rt, const Value& value) {
  if (value.is(Kind::kList) || value.is(Kind::kTuple)) {
    rt.charge(value.items().size() * sizeof(Value));
    return value.items();
  }
  std::vector<Value> out;
  const auto cursor = iterate(rt, value);
  for (Value each; cursor->next(rt, each); out.push_back(each)) {
    rt.step();
    rt.charge(sizeof(Value));
  }
  return out;
}

}  // namespace upg::jinja
