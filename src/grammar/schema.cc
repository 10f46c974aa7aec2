#include "grammar/schema.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "base/error.h"
#include "format/json.h"
#include "grammar/pattern.h"
#include "grammar/schema_keywords.h"
#include "grammar/schema_values.h"

namespace upg::grammar {
namespace {

constexpr size_t kMaxPatternBytes = 4096;
// What xgrammar multiplies out, and beyond that leaves out.
constexpr int64_t kMaxMultipleOf = 1024, kMaxMultipleRange = 10000;

class Rewriter {
 public:
  Rewriter(const Schema& root, bool relaxed, const PatternFault& fault)
      : root_(root), relaxed_(relaxed), fault_(fault) {}

  Schema run() {
    Schema main = rewrite(root_, "#", 0);
    while (!pending_.empty()) {  // what is referred to, and what that refers to
      const std::string pointer = *pending_.begin();
      pending_.erase(pending_.begin());
      definitions_[names_.at(pointer)] = rewrite(target(pointer), pointer, 0);
    }
    check_recursion(main, definitions_);
    for (const OneOf& one_of : one_ofs_) check_one_of(one_of);
    if (!definitions_.empty()) main["$defs"] = definitions_;
    return main;
  }

 private:
  struct OneOf {
    std::string where;
    Schema arms;
  };

  [[noreturn]] static void refuse(const std::string& where, const std::string& why) {
    fail(ErrorCode::kInvalidArgument, "the schema at {}: {}", where, why);
  }
  // What cannot be enforced: out with it, or refused.
  void leave_out(const std::string& where, std::string_view keyword, const std::string& why) const {
    if (!relaxed_) refuse(where, fmt::format("\"{}\" cannot be enforced: {}", keyword, why));
  }

  Schema rewrite(const Schema& schema, const std::string& where, int depth) {
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) refuse(where, "false is a schema that nothing satisfies");
      return Schema::object();
    }
    if (!schema.is_object()) refuse(where, "a schema must be an object");
    if (depth > kMaxSchemaDepth) refuse(where, fmt::format("it nests more than {} levels deep", kMaxSchemaDepth));
    if (++nodes_ > kMaxSchemaNodes) refuse(where, fmt::format("there are more than {} subschemas", kMaxSchemaNodes));
    check_keywords(schema, where);
    if (schema.contains("$ref")) return reference(schema, where);
    if (schema.contains("const") || schema.contains("enum")) return values(schema, where);
    for (const char* keyword : {"anyOf", "oneOf", "allOf"})
      if (schema.contains(keyword)) return combined(schema, keyword, where, depth);
    return typed(schema, where, depth);
  }

  void check_keywords(const Schema& schema, const std::string& where) const {
    for (const auto& [name, value] : schema.items()) {
      if (name.starts_with("x-") || (name == "$id" && where == "#")) continue;
      const Keyword* keyword = find_keyword(name);
      if (keyword == nullptr)
        leave_out(where, name, "it is no keyword of JSON Schema that is known here");
      else if (keyword->use == Use::kUnsupported)
        leave_out(where, name, "grammars cannot express it");
    }
  }

  // Beside `keyword` nothing else may restrict.
  void alone(const Schema& schema, std::initializer_list<std::string_view> keywords, const std::string& where) const {
    for (const auto& [name, value] : schema.items()) {
      const Keyword* keyword = find_keyword(name);
      if (keyword == nullptr || keyword->use == Use::kNote || keyword->use == Use::kUnsupported) continue;
      if (std::find(keywords.begin(), keywords.end(), name) == keywords.end())
        leave_out(where, name, fmt::format("it stands beside \"{}\"", *keywords.begin()));
    }
  }

  Schema reference(const Schema& schema, const std::string& where) {
    alone(schema, {"$ref"}, where);
    if (!schema["$ref"].is_string()) refuse(where, "\"$ref\" must be a string");
    const std::string pointer = schema["$ref"].get<std::string>();
    if (!names_.contains(pointer)) {
      target(pointer);
      names_[pointer] = fmt::format("d{}", names_.size());
      pending_.insert(pointer);
    }
    return {{"$ref", "#/$defs/" + names_[pointer]}};
  }

  const Schema& target(const std::string& pointer) const {
    if (pointer == "#") return root_;
    if (!pointer.starts_with("#/")) refuse(pointer, "\"$ref\" must point into the schema itself: \"#\" or \"#/...\"");
    try {
      return root_.at(Schema::json_pointer(pointer.substr(1)));
    } catch (const Schema::exception&) {
      refuse(pointer, "\"$ref\" points to what is not there");
    }
  }

  Schema values(const Schema& schema, const std::string& where) {
    const bool constant = schema.contains("const");
    alone(schema, {constant ? "const" : "enum", "type"}, where);
    if (!constant && !schema["enum"].is_array()) refuse(where, "\"enum\" must be an array");
    const uint8_t types = schema.contains("type") ? read_types(schema["type"], where) : uint8_t{kAllTypes};
    Schema allowed = Schema::array();
    for (const Schema& value : constant ? Schema::array({schema["const"]}) : schema["enum"]) {
      if (!is_exact(value))
        refuse(where, fmt::format("the value {} is a number that is not held exactly", value.dump()));
      if ((types_of(value) & types) == 0) continue;
      value_bytes_ += value.dump().size();
      allowed.push_back(value);
    }
    if (value_bytes_ > kMaxEnumBytes)
      refuse(where, fmt::format("the values of all enums take more than {} KiB", kMaxEnumBytes >> 10));
    if (allowed.empty()) refuse(where, "no value is allowed");
    return {{"enum", allowed}};
  }

  Schema combined(const Schema& schema, const char* keyword, const std::string& where, int depth) {
    alone(schema, {keyword}, where);
    const Schema& list = schema[keyword];
    if (!list.is_array() || list.empty()) refuse(where, fmt::format("\"{}\" must be an array with a schema", keyword));
    const std::string name = keyword;
    if (name == "allOf" && list.size() > 1) {
      leave_out(where, keyword, "it has more than one schema");
      return Schema::object();
    }
    Schema arms = Schema::array();
    for (size_t i = 0; i < list.size(); ++i)
      arms.push_back(rewrite(list[i], fmt::format("{}/{}/{}", where, keyword, i), depth + 1));
    if (arms.size() == 1) return arms[0];
    if (name == "oneOf") one_ofs_.push_back({where, arms});
    return {{"anyOf", arms}};
  }

  static uint8_t read_types(const Schema& type, const std::string& where) {
    uint8_t types = 0;
    for (const Schema& name : type.is_array() ? type : Schema::array({type})) {
      const uint8_t bit = name.is_string() ? type_bit(name.get<std::string>()) : uint8_t{0};
      if (bit == 0) refuse(where, fmt::format("{} is no type", name.dump()));
      types |= bit;
    }
    if (types == 0) refuse(where, "\"type\" names no type");
    return (types & kNumber) != 0 ? static_cast<uint8_t>(types | kInteger) : types;
  }

  Schema typed(const Schema& schema, const std::string& where, int depth) {
    uint8_t types = 0;
    const bool told = schema.contains("type");
    if (told) {
      types = read_types(schema["type"], where);
    } else {  // keywords restrict values of their types alone; those types are chosen
      for (const auto& [name, value] : schema.items())
        if (const Keyword* keyword = find_keyword(name)) types |= keyword->types;
      if (types == 0) return Schema::object();
    }
    if ((types & kNumber) != 0) types &= static_cast<uint8_t>(~kInteger);
    Schema arms = Schema::array();
    for (uint8_t bit = 1; bit < kAllTypes; bit = static_cast<uint8_t>(bit << 1))
      if ((types & bit) != 0) arms.push_back(of_type(bit, schema, where, depth));
    for (Schema& arm : arms)
      if (!told) arm["x-inferred"] = true;  // the schema takes other types too, which matters in oneOf
    return arms.size() == 1 ? arms[0] : Schema{{"anyOf", arms}};
  }

  Schema of_type(uint8_t type, const Schema& schema, const std::string& where, int depth) {
    switch (type) {
      case kInteger:
        return integer(schema, where);
      case kNumber:
        return number(schema, where);
      case kString:
        return string(schema, where);
      case kArray:
        return array(schema, where, depth);
      case kObject:
        return object(schema, where, depth);
      default:
        return {{"type", type_name(type)}};
    }
  }

  static std::optional<double> bound(const Schema& schema, const char* keyword, const std::string& where) {
    if (!schema.contains(keyword)) return std::nullopt;
    if (!schema[keyword].is_number()) refuse(where, fmt::format("\"{}\" must be a number", keyword));
    if (!is_exact(schema[keyword])) refuse(where, fmt::format("\"{}\" is a number that is not held exactly", keyword));
    return schema[keyword].get<double>();
  }

  Schema integer(const Schema& schema, const std::string& where) {
    constexpr double kFar = 9007199254740992.0;  // up to where doubles have every integer
    Schema out{{"type", "integer"}};
    std::optional<double> low, high;
    const auto raise = [&](std::optional<double> value) { low = std::max(low.value_or(*value), *value); };
    const auto lower = [&](std::optional<double> value) { high = std::min(high.value_or(*value), *value); };
    if (const auto v = bound(schema, "minimum", where)) raise(std::ceil(*v));
    if (const auto v = bound(schema, "exclusiveMinimum", where)) raise(std::floor(*v) + 1);
    if (const auto v = bound(schema, "maximum", where)) lower(std::floor(*v));
    if (const auto v = bound(schema, "exclusiveMaximum", where)) lower(std::ceil(*v) - 1);
    const std::string format =
        schema.contains("format") && schema["format"].is_string() ? schema["format"].get<std::string>() : "";
    if (format == "int32") raise(-2147483648.0), lower(2147483647.0);
    if (format == "int64") raise(-kFar), lower(kFar);
    for (const auto& v : {low, high})
      if (v && std::abs(*v) > kFar) refuse(where, "a bound of integers is beyond 2^53");
    if (low && high && *low > *high) refuse(where, "no integer lies between the bounds");
    if (low) out["minimum"] = static_cast<int64_t>(*low);
    if (high) out["maximum"] = static_cast<int64_t>(*high);
    if (const auto v = bound(schema, "multipleOf", where)) {
      const bool both = low && high && *high - *low < static_cast<double>(kMaxMultipleRange) - 1;
      if (*v <= 0) refuse(where, "\"multipleOf\" must be more than 0");
      if (*v != std::floor(*v) || *v > static_cast<double>(kMaxMultipleOf) || !(both || (!low && !high)))
        leave_out(where, "multipleOf",
                  fmt::format("it must be a whole number up to {}, with both bounds less than {} apart or none",
                              kMaxMultipleOf, kMaxMultipleRange));
      else
        out["multipleOf"] = static_cast<int64_t>(*v);
    }
    return out;
  }

  Schema number(const Schema& schema, const std::string& where) {
    Schema out{{"type", "number"}};
    for (const char* keyword : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
      const auto v = bound(schema, keyword, where);
      if (!v) continue;
      // xgrammar compares up to six digits behind the point.
      if (std::abs(*v) > 1e9 || *v != std::round(*v * 1e6) / 1e6)
        leave_out(where, keyword, "bounds of numbers have six digits behind the point at most and are below 10^9");
      else
        out[keyword] = *v;
    }
    if (schema.contains("multipleOf")) leave_out(where, "multipleOf", "it is enforced for integers alone");
    return out;
  }

  int64_t count(const Schema& schema, const char* keyword, int64_t otherwise, int64_t most, const std::string& where) {
    if (!schema.contains(keyword)) return otherwise;
    const std::optional<int64_t> value = whole_number(schema[keyword]);
    if (!value || *value < 0) refuse(where, fmt::format("\"{}\" must be a whole number from 0", keyword));
    if (*value > most) refuse(where, fmt::format("\"{}\" is {}, {} is the limit", keyword, *value, most));
    return *value;
  }

  void check_pattern(const std::string& pattern, const std::string& where) const {
    if (pattern.size() > kMaxPatternBytes)
      refuse(where, fmt::format("a pattern has {} bytes, {} are the limit", pattern.size(), kMaxPatternBytes));
    const bool plain = std::all_of(pattern.begin(), pattern.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
    const std::string fault =
        plain ? fault_(exact_pattern(pattern)) : "it must be of ASCII characters (write others as \\u00e9)";
    if (!fault.empty()) refuse(where, fmt::format("the pattern \"{}\" cannot be enforced: {}", pattern, fault));
  }

  Schema string(const Schema& schema, const std::string& where) {
    Schema out{{"type", "string"}};
    const int64_t least = count(schema, "minLength", 0, kMaxStringLength, where);
    const int64_t most = count(schema, "maxLength", -1, kMaxStringLength, where);
    if (most >= 0 && least > most) refuse(where, "\"minLength\" is more than \"maxLength\"");
    std::string pattern;
    if (schema.contains("format")) {
      if (!schema["format"].is_string()) refuse(where, "\"format\" must be a string");
      const char* known = format_pattern(schema["format"].get<std::string>());
      if (known != nullptr)
        pattern = known;
      else
        leave_out(where, "format", fmt::format("the format {} is not known", schema["format"].dump()));
    }
    if (schema.contains("pattern")) {
      if (!schema["pattern"].is_string()) refuse(where, "\"pattern\" must be a string");
      if (!pattern.empty()) leave_out(where, "format", "it stands beside \"pattern\"");
      pattern = schema["pattern"].get<std::string>();
      check_pattern(pattern, where);
    }
    if (!pattern.empty() || schema.contains("pattern")) out["pattern"] = exact_pattern(pattern);
    if (least == 0 && most < 0) return out;
    if (out.contains("pattern")) {
      leave_out(where, least > 0 ? "minLength" : "maxLength", "it stands beside a pattern or a format");
      return out;
    }
    if (least > 0) out["minLength"] = least;
    if (most >= 0) out["maxLength"] = most;
    return out;
  }

  Schema array(const Schema& schema, const std::string& where, int depth) {
    Schema out{{"type", "array"}};
    const int64_t least = count(schema, "minItems", 0, kMaxItemCount, where);
    const int64_t most = count(schema, "maxItems", -1, kMaxItemCount, where);
    if (most >= 0 && least > most) refuse(where, "\"minItems\" is more than \"maxItems\"");
    if (schema.contains("uniqueItems") && schema["uniqueItems"] != false)
      leave_out(where, "uniqueItems", "grammars do not remember what was said");
    const Schema none;
    const Schema& items = schema.contains("items") ? schema["items"] : none;
    if (items.is_array()) refuse(where, "\"items\" must be a schema: a list of them is \"prefixItems\"");
    int64_t in_front = 0;
    if (schema.contains("prefixItems")) {
      if (!schema["prefixItems"].is_array()) refuse(where, "\"prefixItems\" must be an array");
      Schema prefix = Schema::array();
      for (const Schema& item : schema["prefixItems"]) {
        if (most >= 0 && in_front == most) break;
        prefix.push_back(rewrite(item, fmt::format("{}/prefixItems/{}", where, in_front++), depth + 1));
      }
      if (!prefix.empty()) out["prefixItems"] = prefix;
    }
    if (items == false) {
      if (least > in_front)
        refuse(where, fmt::format("\"minItems\" asks for {} items, {} are allowed", least, in_front));
      out["items"] = false;
    } else if (!items.is_null()) {
      out["items"] = rewrite(items, where + "/items", depth + 1);
    } else if (in_front == 0 || least > in_front) {
      out["items"] = Schema::object();
    } else {
      out["items"] = false;  // no more than are described
    }
    if (least > 0) out["minItems"] = least;
    if (most >= 0) out["maxItems"] = most;
    if (most == in_front && in_front > 0) out["items"] = false;
    return out;
  }

  Schema object(const Schema& schema, const std::string& where, int depth) {
    Schema out{{"type", "object"}};
    Schema properties = Schema::object();
    if (schema.contains("properties")) {
      if (!schema["properties"].is_object()) refuse(where, "\"properties\" must be an object");
      for (const auto& [name, value] : schema["properties"].items()) {
        if (value == false) continue;  // never there, as if it were not named: others are not allowed either
        properties[name] = rewrite(value, fmt::format("{}/properties/{}", where, name), depth + 1);
      }
    }
    // Other properties: not at all, or of this schema.
    const char* open = schema.contains("additionalProperties") ? "additionalProperties" : "unevaluatedProperties";
    const bool told = schema.contains(open);
    const bool closed = told && schema[open] == false;
    std::optional<Schema> others;
    if (told && !closed) others = rewrite(schema[open], fmt::format("{}/{}", where, open), depth + 1);
    std::set<std::string> missing = required_names(schema, where);
    Schema required = Schema::array();
    for (const std::string& name : missing) {
      required.push_back(name);
      if (properties.contains(name)) continue;
      if (closed || (schema.contains("properties") && schema["properties"].contains(name)))
        refuse(where, fmt::format("\"{}\" is required but not allowed", name));
      if (schema.contains("patternProperties"))
        refuse(where, fmt::format("\"{}\" is required but not in \"properties\"", name));
      properties[name] = others.value_or(Schema::object());
    }
    const int64_t least = count(schema, "minProperties", 0, kMaxItemCount, where);
    const int64_t most = count(schema, "maxProperties", -1, kMaxItemCount, where);
    if (most >= 0 && static_cast<int64_t>(required.size()) > most)
      refuse(where, "\"maxProperties\" is less than there are required");
    bool free_names = others.has_value();
    if (schema.contains("patternProperties"))
      free_names |= pattern_properties(schema, properties, told && !closed, where, depth, out);
    if (schema.contains("propertyNames")) property_names(schema, properties, closed, where, depth, out);
    const bool anything = properties.empty() && !told && out.size() == 1 && !schema.contains("properties");
    free_names = free_names || anything || out.contains("propertyNames");
    if (!properties.empty()) {
      if (others) {
        out["patternProperties"] = {{other_keys(properties, where), *others}};
      }
      out["properties"] = properties;
      if (!required.empty()) out["required"] = required;
    } else if (others) {
      out["additionalProperties"] = *others;
    } else if (anything && (least > 0 || most >= 0)) {
      out["additionalProperties"] = Schema::object();
    }
    if (least > 1 && free_names)
      leave_out(where, "minProperties", "names may repeat where they are not given by \"properties\"");
    else if (least > static_cast<int64_t>(properties.size()) && !free_names)
      refuse(where, fmt::format("\"minProperties\" asks for {} properties, {} are allowed", least, properties.size()));
    else if (least > 0)
      out["minProperties"] = least;
    if (most >= 0) out["maxProperties"] = most;
    if (out.size() == 1 && !anything) out["additionalProperties"] = false;
    return out;
  }

  static std::set<std::string> required_names(const Schema& schema, const std::string& where) {
    std::set<std::string> names;
    if (!schema.contains("required")) return names;
    if (!schema["required"].is_array()) refuse(where, "\"required\" must be an array");
    for (const Schema& name : schema["required"]) {
      if (!name.is_string()) refuse(where, "\"required\" must be an array of strings");
      names.insert(name.get<std::string>());
    }
    return names;
  }

  // Names that the properties do not have: xgrammar would let them repeat, with other values.
  std::string other_keys(const Schema& properties, const std::string& where) const {
    std::vector<std::string> names;
    for (const auto& [name, value] : properties.items()) names.push_back(name);
    std::string pattern = exact_pattern(pattern_of_other_keys(names));
    if (pattern.size() > kMaxPatternBytes * 8)
      refuse(where, "\"additionalProperties\" beside so many properties cannot be enforced");
    return pattern;
  }

  bool pattern_properties(const Schema& schema, const Schema& properties, bool others, const std::string& where,
                          int depth, Schema& out) {
    const Schema& patterns = schema["patternProperties"];
    if (!patterns.is_object()) refuse(where, "\"patternProperties\" must be an object");
    if (patterns.empty()) return false;
    if (patterns.size() > 1 || !properties.empty() || others || schema.contains("propertyNames")) {
      leave_out(where, "patternProperties", "it must have one pattern, and no other properties may be allowed");
      return false;
    }
    const std::string pattern = patterns.begin().key();
    check_pattern(pattern, where + "/patternProperties");
    out["patternProperties"] = {
        {exact_pattern(pattern), rewrite(patterns.begin().value(), where + "/patternProperties", depth + 1)}};
    return true;
  }

  void property_names(const Schema& schema, const Schema& properties, bool closed, const std::string& where, int depth,
                      Schema& out) {
    if (closed && properties.empty()) return;  // there are no names at all
    if (!properties.empty() || schema.contains("patternProperties")) {
      leave_out(where, "propertyNames", "it stands beside other properties");
      return;
    }
    Schema names = schema["propertyNames"];
    if (!names.is_object()) refuse(where, "\"propertyNames\" must be a schema");
    if (!names.contains("$ref") && !names.contains("enum") && !names.contains("const")) names["type"] = "string";
    Schema rewritten = rewrite(names, where + "/propertyNames", depth + 1);
    const bool texts = rewritten.contains("type") ? rewritten["type"] == "string" : rewritten.contains("enum");
    if (!texts || (rewritten.contains("enum") && !std::all_of(rewritten["enum"].begin(), rewritten["enum"].end(),
                                                              [](const Schema& v) { return v.is_string(); }))) {
      leave_out(where, "propertyNames", "it must be of type string or a list of strings");
      return;
    }
    out["propertyNames"] = std::move(rewritten);
  }

  void check_one_of(const OneOf& one_of) const {
    for (size_t i = 0; i < one_of.arms.size(); ++i)
      for (size_t k = 0; k < i; ++k)
        if (!exclude_each_other(one_of.arms[k], one_of.arms[i], definitions_)) {
          leave_out(one_of.where, "oneOf",
                    fmt::format("its schemas {} and {} must exclude each other by type, or by a required property with "
                                "different constants",
                                k, i));
          return;
        }
  }

  const Schema& root_;
  bool relaxed_;
  const PatternFault& fault_;
  size_t nodes_ = 0, value_bytes_ = 0;
  std::map<std::string, std::string> names_;  // by pointer
  std::set<std::string> pending_;             // pointers
  Schema definitions_ = Schema::object();
  std::vector<OneOf> one_ofs_;
};

}  // namespace

Schema normal_schema(std::string_view text, bool relaxed, const PatternFault& pattern_fault) {
  try {
    parse_json(text, "the schema", kMaxSchemaDepth * 2);
  } catch (const Error& error) {
    fail(ErrorCode::kInvalidArgument, "{}", error.what());
  }
  const Schema root = Schema::parse(text);
  return Rewriter(root, relaxed, pattern_fault).run();
}

}  // namespace upg::grammar
