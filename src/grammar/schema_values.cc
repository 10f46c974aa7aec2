#include "grammar/schema_values.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/error.h"
#include "grammar/schema_keywords.h"

namespace upg::grammar {
namespace {

const Schema* definition(const Schema& schema, const Schema& definitions) {
  const std::string ref = schema["$ref"].get<std::string>();
  const auto at = definitions.find(ref.substr(ref.rfind('/') + 1));
  return at == definitions.end() ? nullptr : &*at;
}

// Schemas without choices and references, which `schema` is one of.
void collect_arms(const Schema& schema, const Schema& definitions, std::set<const Schema*>& seen,
                  std::vector<const Schema*>& arms) {
  if (!seen.insert(&schema).second) return;
  if (schema.contains("$ref")) {
    if (const Schema* target = definition(schema, definitions)) collect_arms(*target, definitions, seen, arms);
  } else if (schema.contains("anyOf")) {
    for (const Schema& arm : schema["anyOf"]) collect_arms(arm, definitions, seen, arms);
  } else {
    arms.push_back(&schema);
  }
}

std::vector<const Schema*> arms_of(const Schema& schema, const Schema& definitions) {
  std::set<const Schema*> seen;
  std::vector<const Schema*> arms;
  collect_arms(schema, definitions, seen, arms);
  return arms;
}

uint8_t types_of_arm(const Schema& arm) {
  if (!arm.contains("type") || arm.contains("x-inferred")) return kAllTypes;
  const uint8_t bit = type_bit(arm["type"].get<std::string>());
  return (bit & (kInteger | kNumber)) != 0 ? uint8_t{kInteger | kNumber} : bit;
}

bool share_a_value(const Schema& a, const Schema& b) {
  return std::any_of(a.begin(), a.end(), [&](const Schema& x) { return std::find(b.begin(), b.end(), x) != b.end(); });
}

// The values that a required property may have, where they are listed.
const Schema* listed(const Schema& object, const std::string& name, const Schema& definitions) {
  const Schema& required = object["required"];
  if (std::find(required.begin(), required.end(), name) == required.end()) return nullptr;
  const auto arms = arms_of(object["properties"][name], definitions);
  return arms.size() == 1 && arms[0]->contains("enum") ? &(*arms[0])["enum"] : nullptr;
}

bool arms_exclude(const Schema& a, const Schema& b, const Schema& definitions) {
  if (a.contains("enum") && b.contains("enum")) return !share_a_value(a["enum"], b["enum"]);
  if (a.contains("enum") || b.contains("enum")) {
    const Schema& values = a.contains("enum") ? a["enum"] : b["enum"];
    const uint8_t types = types_of_arm(a.contains("enum") ? b : a);
    return std::none_of(values.begin(), values.end(), [&](const Schema& v) { return (types_of(v) & types) != 0; });
  }
  if ((types_of_arm(a) & types_of_arm(b)) == 0) return true;
  for (const Schema* arm : {&a, &b})
    if (types_of_arm(*arm) != kObject || !arm->contains("properties") || !arm->contains("required")) return false;
  for (const auto& [name, value] : a["properties"].items()) {
    if (!b["properties"].contains(name)) continue;
    const Schema* of_a = listed(a, name, definitions);
    const Schema* of_b = listed(b, name, definitions);
    if (of_a != nullptr && of_b != nullptr && !share_a_value(*of_a, *of_b)) return true;
  }
  return false;
}

// Whether a value that ends can satisfy `schema`; `good` has the definitions of which that is known.
bool can_end(const Schema& schema, const std::set<const Schema*>& good, const Schema& definitions) {
  const auto ends = [&](const Schema& s) { return can_end(s, good, definitions); };
  if (schema.contains("$ref")) return good.contains(definition(schema, definitions));
  if (schema.contains("anyOf")) return std::any_of(schema["anyOf"].begin(), schema["anyOf"].end(), ends);
  const std::string type = schema.contains("type") ? schema["type"].get<std::string>() : "";
  if (type == "object" && schema.contains("required"))
    return std::all_of(schema["required"].begin(), schema["required"].end(),
                       [&](const Schema& name) { return ends(schema["properties"][name.get<std::string>()]); });
  if (type == "array" && schema.contains("minItems")) {
    auto left = schema["minItems"].get<int64_t>();
    if (schema.contains("prefixItems"))
      for (const Schema& item : schema["prefixItems"])
        if (left-- > 0 && !ends(item)) return false;
    return left <= 0 || ends(schema["items"]);
  }
  return true;
}

// Along references and choices alone, which take no text.
void check_unguarded(const Schema& schema, const Schema& definitions, std::set<const Schema*>& open,
                     std::set<const Schema*>& done) {
  if (schema.contains("anyOf")) {
    for (const Schema& arm : schema["anyOf"]) check_unguarded(arm, definitions, open, done);
  } else if (schema.contains("$ref")) {
    const Schema* target = definition(schema, definitions);
    if (target == nullptr || done.contains(target)) return;
    if (!open.insert(target).second)
      fail(ErrorCode::kInvalidArgument, "the schema refers to itself by \"$ref\" with nothing between");
    check_unguarded(*target, definitions, open, done);
    open.erase(target);
    done.insert(target);
  }
}

}  // namespace

bool is_exact(const Schema& value) {
  if (value.is_structured()) return std::all_of(value.begin(), value.end(), is_exact);
  if (value.is_number_unsigned())
    return value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  return !value.is_number_float() || std::isfinite(value.get<double>());
}

uint8_t types_of(const Schema& value) {
  if (value.is_null()) return kNull;
  if (value.is_boolean()) return kBoolean;
  if (value.is_string()) return kString;
  if (value.is_array()) return kArray;
  if (value.is_object()) return kObject;
  return whole_number(value) || (value.is_number() && std::floor(value.get<double>()) == value.get<double>())
             ? uint8_t{kInteger | kNumber}
             : uint8_t{kNumber};
}

std::optional<int64_t> whole_number(const Schema& value) {
  if (value.is_number_unsigned()) {
    const auto n = value.get<uint64_t>();
    if (n > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::numeric_limits<int64_t>::max();
    return static_cast<int64_t>(n);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double n = value.get<double>();
  if (!(std::abs(n) < 9e18) || n != std::floor(n)) return std::nullopt;
  return static_cast<int64_t>(n);
}

bool exclude_each_other(const Schema& a, const Schema& b, const Schema& definitions) {
  const auto of_a = arms_of(a, definitions), of_b = arms_of(b, definitions);
  return std::all_of(of_a.begin(), of_a.end(), [&](const Schema* x) {
    return std::all_of(of_b.begin(), of_b.end(), [&](const Schema* y) { return arms_exclude(*x, *y, definitions); });
  });
}

void check_recursion(const Schema& main, const Schema& definitions) {
  std::set<const Schema*> open, done;
  check_unguarded(main, definitions, open, done);
  for (const Schema& schema : definitions) check_unguarded(schema, definitions, open, done);
  std::set<const Schema*> good;
  for (bool grows = true; grows;) {
    grows = false;
    for (const Schema& schema : definitions)
      if (!good.contains(&schema) && can_end(schema, good, definitions)) grows = good.insert(&schema).second;
  }
  if (!can_end(main, good, definitions))
    fail(ErrorCode::kInvalidArgument, "no value that ends satisfies the schema: it requires itself within itself");
}

}  // namespace upg::grammar
