// Characters that become several when their case changes. The rest is utf8proc's.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace upg::jinja {

struct LongCase {
  uint32_t code_point;
  std::string_view upper;
  std::string_view title;
};

extern const std::span<const LongCase> kLongCases;  // sorted

}  // namespace upg::jinja
