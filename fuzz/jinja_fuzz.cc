// A template and, after the first zero byte, its variables as JSON: only upg::Error may come out, and soon.
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "text/jinja/jinja.h"
#include "upg/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t zero = input.find('\0');
  auto variables = nlohmann::ordered_json::parse(
      R"({"messages":[{"role":"user","content":"a\u00e9 b"},{"role":"assistant","content":null}],"x":3,"y":-0.5})");
  if (zero != std::string_view::npos) {
    const auto given = nlohmann::ordered_json::parse(input.substr(zero + 1), nullptr, false);
    if (given.is_object()) variables = given;
  }
  upg::jinja::Limits limits;
  limits.max_steps = 20'000;
  limits.max_bytes = 4 << 20;
  limits.max_string = limits.max_output = 1 << 20;
  limits.max_depth = 200;
  try {
    upg::jinja::Template(std::string(input.substr(0, zero)), "input").render(variables, limits);
  } catch (const upg::Error&) {
  }
  return 0;
}
