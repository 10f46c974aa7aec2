// Between stored floating-point tensors and float. No alignment is assumed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/tensor_view.h"

namespace upg {

/// Whether read_floats() takes this dtype: BF16, F16, F32, F64.
bool is_float_dtype(DType dtype);

/// out[i] = element first + i of `view`, in row-major order. F64 rounds to nearest. Throws Error(kUnsupported) for
/// other dtypes and Error(kInvalidArgument) for a range outside the tensor, both naming the tensor.
void read_floats(const TensorView& view, uint64_t first, std::span<float> out);

/// The inverse for BF16, F16 and F32, rounding to nearest even: `out` has values.size() elements. Throws
/// Error(kUnsupported) for other dtypes.
void write_floats(DType dtype, std::span<const float> values, std::span<std::byte> out);

}  // namespace upg
