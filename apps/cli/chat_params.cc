#include "chat_params.h"

#include <fmt/format.h>

#include <charconv>
#include <sstream>
#include <string>

namespace upg::cli {
namespace {

using Json = nlohmann::json;

struct Param {
  const char* name;
  uint64_t most;  // of a whole number; 0: a fraction, whose range the engine knows
  Json (*get)(const GenerateOptions& options);
  void (*set)(GenerateOptions& options, const Json& value);
};

// 0.8 and not 0.800000011920929.
Json shortest(float value) { return std::stod(fmt::format("{}", value)); }

template <float SamplingOptions::*Field>
constexpr Param fraction(const char* name) {
  return {name, 0, [](const GenerateOptions& o) { return shortest(o.sampling.*Field); },
          [](GenerateOptions& o, const Json& value) { o.sampling.*Field = value.get<float>(); }};
}

constexpr Param kParams[] = {
    fraction<&SamplingOptions::temperature>("temperature"),
    {"top_k", UINT32_MAX, [](const GenerateOptions& o) { return Json(o.sampling.top_k); },
     [](GenerateOptions& o, const Json& value) { o.sampling.top_k = value.get<uint32_t>(); }},
    fraction<&SamplingOptions::top_p>("top_p"),
    fraction<&SamplingOptions::min_p>("min_p"),
    fraction<&SamplingOptions::repetition_penalty>("repetition_penalty"),
    fraction<&SamplingOptions::presence_penalty>("presence_penalty"),
    fraction<&SamplingOptions::frequency_penalty>("frequency_penalty"),
    {"seed", UINT64_MAX, [](const GenerateOptions& o) { return Json(o.sampling.seed); },
     [](GenerateOptions& o, const Json& value) { o.sampling.seed = value.get<uint64_t>(); }},
    {"max_tokens", UINT64_MAX, [](const GenerateOptions& o) { return Json(o.max_tokens); },
     [](GenerateOptions& o, const Json& value) { o.max_tokens = value.get<uint64_t>(); }},
};

[[noreturn]] void refuse(const std::string& message) { throw Error(ErrorCode::kInvalidArgument, message); }

const Param& find_param(std::string_view name) {
  std::string names;
  for (const Param& param : kParams) {
    if (param.name == name) return param;
    names += (names.empty() ? "" : ", ") + std::string(param.name);
  }
  refuse(fmt::format("there is no parameter {:?}: choose from {}", name, names));
}

// A number of the whole of `text`, null where it is none.
template <typename Number>
Json parse_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? Json(value) : Json();
}

void set(const Param& param, const Json& value, std::string_view written, GenerateOptions& options) {
  if (param.most != 0 && !(value.is_number_unsigned() && value.get<uint64_t>() <= param.most))
    refuse(fmt::format("{} is {}, must be a whole number from 0 to {}", param.name, written, param.most));
  if (!value.is_number()) refuse(fmt::format("{} is {}, must be a number", param.name, written));
  param.set(options, value);
}

}  // namespace

nlohmann::ordered_json params_json(const GenerateOptions& options) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  for (const Param& param : kParams) out[param.name] = param.get(options);
  return out;
}

void set_params(std::string_view text, const Engine& engine, GenerateOptions& options) {
  GenerateOptions changed = options;
  std::istringstream words{std::string(text)};
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos)
      refuse(fmt::format("{:?} is no setting: write NAME=VALUE, as in temperature=0.7", word));
    const Param& param = find_param(word.substr(0, equals));
    const std::string value = word.substr(equals + 1);
    set(param, param.most != 0 ? parse_number<uint64_t>(value) : parse_number<double>(value),
        fmt::format("{:?}", value), changed);
  }
  engine.check_sampling(changed.sampling);
  options = std::move(changed);
}

void set_params(const Json& values, const Engine& engine, GenerateOptions& options) {
  GenerateOptions changed = options;
  for (const auto& [name, value] : values.items())
    set(find_param(name), value, value.dump(-1, ' ', false, Json::error_handler_t::replace), changed);
  engine.check_sampling(changed.sampling);
  options = std::move(changed);
}

}  // namespace upg::cli
