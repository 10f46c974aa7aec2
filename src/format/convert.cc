#include "format/convert.h"

#include <cstring>

#include "base/error.h"
#include "base/float16.h"

namespace upg {

namespace {

template <typename Stored, typename Convert>
void load(const std::byte* in, std::span<float> out, Convert convert) {
  for (size_t i = 0; i < out.size(); ++i) {
    Stored value;
    std::memcpy(&value, in + i * sizeof(Stored), sizeof(Stored));
    out[i] = convert(value);
  }
}

void store_16(std::span<const float> values, std::byte* out, uint16_t (*convert)(float)) {
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t value = convert(values[i]);
    std::memcpy(out + i * sizeof(value), &value, sizeof(value));
  }
}

}  // namespace

bool is_float_dtype(DType dtype) {
  return dtype == DType::kBF16 || dtype == DType::kF16 || dtype == DType::kF32 || dtype == DType::kF64;
}

void read_floats(const TensorView& view, uint64_t first, std::span<float> out) {
  if (!is_float_dtype(view.dtype))
    fail(ErrorCode::kUnsupported, "tensor {:?} has dtype {}; weights must be BF16, F16, F32 or F64", view.name,
         dtype_info(view.dtype).name);
  if (first > view.elements() || out.size() > view.elements() - first)
    fail(ErrorCode::kInvalidArgument, "tensor {:?} has {} elements; cannot read {} from number {} on", view.name,
         view.elements(), out.size(), first);
  if (out.empty()) return;
  const std::byte* in = view.data.data() + first * dtype_info(view.dtype).bytes;
  if (view.dtype == DType::kBF16)
    load<uint16_t>(in, out, [](uint16_t bits) { return bf16_to_float(bits); });
  else if (view.dtype == DType::kF16)
    load<uint16_t>(in, out, [](uint16_t bits) { return f16_to_float(bits); });
  else if (view.dtype == DType::kF64)
    load<double>(in, out, [](double value) { return static_cast<float>(value); });
  else
    std::memcpy(out.data(), in, out.size_bytes());
}

void write_floats(DType dtype, std::span<const float> values, std::span<std::byte> out) {
  if (dtype != DType::kBF16 && dtype != DType::kF16 && dtype != DType::kF32)
    fail(ErrorCode::kUnsupported, "cannot write floats as {}; BF16, F16 and F32 are possible", dtype_info(dtype).name);
  UPG_CHECK(out.size() == values.size() * dtype_info(dtype).bytes);
  if (dtype == DType::kBF16)
    store_16(values, out.data(), float_to_bf16);
  else if (dtype == DType::kF16)
    store_16(values, out.data(), float_to_f16);
  else if (!values.empty())
    std::memcpy(out.data(), values.data(), values.size_bytes());
}

}  // namespace upg
