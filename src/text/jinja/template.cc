// A template from outside: parsing, and variables from JSON.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/jinja/jinja.h"
#include "text/jinja/parser.h"
#include "text/unicode.h"

namespace upg::jinja {
namespace {

using Json = nlohmann::ordered_json;

std::string repaired(const std::string& text) {
  std::string out;
  append_repaired_utf8(out, text, false);
  return out;
}

// Not charged: the variables are there already, and as large.
Value convert(const Runtime& rt, const Json& json, uint32_t depth) {
  if (depth > rt.limits.max_value_depth) rt.fail("variables nest deeper than {} levels", rt.limits.max_value_depth);
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > INT64_MAX)
        rt.fail("the number {} in the variables needs more than 64 bits", json.dump());
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_float:
      return Value::number(json.get<double>());
    case Json::value_t::string:
      return Value::text(repaired(json.get_ref<const std::string&>()));
    case Json::value_t::array: {
      auto data = std::make_shared<SequenceData>();
      for (const Json& each : json) {
        data->items.push_back(convert(rt, each, depth + 1));
        data->depth = std::max(data->depth, data->items.back().depth());
      }
      ++data->depth;
      return {Kind::kList, std::move(data)};
    }
    case Json::value_t::object: {
      auto data = std::make_shared<DictData>();
      for (const auto& [key, each] : json.items()) {
        Value value = convert(rt, each, depth + 1);
        data->depth = std::max(data->depth, value.depth());
        data->set(Value::text(repaired(key)), std::move(value));
      }
      ++data->depth;
      return {Kind::kDict, std::move(data)};
    }
    default:
      return Value::none();
  }
}

}  // namespace

Template::Template(const std::string& source, std::string name) : program_(parse(source, name)) {}
Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

std::string Template::render(const nlohmann::ordered_json& variables, const Limits& limits,
                             std::optional<std::chrono::system_clock::time_point> now) const {
  Runtime rt(program_->name, limits, now.value_or(std::chrono::system_clock::now()));
  if (!variables.is_object()) fail(ErrorCode::kInvalidArgument, "{}: the variables must be an object", program_->name);
  const Value all = convert(rt, variables, 0);
  const auto frame = std::make_shared<Frame>(*program_, nullptr);
  frame->variables = &all.as<DictData>();
  std::string out;
  rt.sink = &out;
  run_body(rt, program_->body, frame);
  frame->values.clear();
  return out;
}

}  // namespace upg::jinja
