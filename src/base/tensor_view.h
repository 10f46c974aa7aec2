// A named, typed, shaped view of bytes that somebody else owns (usually a mapped file).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace upg {

struct TensorView {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;
  std::span<const std::byte> data;  // row-major, exactly product(shape) * element size bytes

  uint64_t elements() const { return data.size() / dtype_info(dtype).bytes; }

  /// The data as T. The caller has checked dtype and alignment (the safetensors reader guarantees neither for foreign
  /// files).
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(data.data());
  }
};

/// "[3, 4]"
std::string shape_string(std::span<const uint64_t> shape);

}  // namespace upg
