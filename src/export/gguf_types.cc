#include "export/gguf_types.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/float16.h"
#include "format/convert.h"

namespace upg {
namespace {

constexpr float kLargestF16 = 65504;
constexpr uint64_t kQ8Block = 32;

size_t encode_f32(std::span<const float> values, std::byte* out) {
  write_floats(DType::kF32, values, {out, values.size_bytes()});
  return values.size();
}

template <DType kType>
size_t encode_16(std::span<const float> values, std::byte* out) {
  write_floats(kType, values, {out, values.size() * 2});
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, out + 2 * i, 2);
    if (!std::isfinite(kType == DType::kF16 ? f16_to_float(bits) : bf16_to_float(bits))) return i;
  }
  return values.size();
}

// A block is its step as F16, then 32 int8: round(value / step), halves away from zero, by the step before it is
// rounded to F16.
size_t encode_q8_0(std::span<const float> values, std::byte* out) {
  for (size_t at = 0; at < values.size(); at += kQ8Block, out += 2 + kQ8Block) {
    float largest = 0;
    for (size_t i = 0; i < kQ8Block; ++i) largest = std::max(largest, std::abs(values[at + i]));
    const float step = largest / 127;
    if (step > kLargestF16) return at;
    const uint16_t stored = float_to_f16(step);
    std::memcpy(out, &stored, sizeof(stored));
    const float inverse = step == 0 ? 0 : 1 / step;
    for (size_t i = 0; i < kQ8Block; ++i)
      out[2 + i] = static_cast<std::byte>(
          static_cast<int8_t>(std::clamp(std::round(values[at + i] * inverse), -127.0f, 127.0f)));
  }
  return values.size();
}

constexpr GgufType kTypes[] = {
    {"f16", 1, 1, 1, 2, encode_16<DType::kF16>},
    {"bf16", 30, 32, 1, 2, encode_16<DType::kBF16>},
    {"f32", 0, 0, 1, 4, encode_f32},
    {"q8_0", 8, 7, kQ8Block, 2 + kQ8Block, encode_q8_0},
};

}  // namespace

std::span<const GgufType> gguf_types() { return kTypes; }

const GgufType* find_gguf_type(std::string_view name) {
  const auto found = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return t.name == name; });
  return found == std::end(kTypes) ? nullptr : found;
}

}  // namespace upg
