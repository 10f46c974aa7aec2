// Element types of stored tensors: one list, by their safetensors names.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace upg {

enum class DType : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kU16,
  kI16,
  kF16,
  kBF16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64
};

struct DTypeInfo {
  DType type;
  std::string_view name;
  uint32_t bytes;
};

inline constexpr std::array kDTypes = {
    DTypeInfo{DType::kBool, "BOOL", 1},      DTypeInfo{DType::kU8, "U8", 1},
    DTypeInfo{DType::kI8, "I8", 1},          DTypeInfo{DType::kF8E5M2, "F8_E5M2", 1},
    DTypeInfo{DType::kF8E4M3, "F8_E4M3", 1}, DTypeInfo{DType::kU16, "U16", 2},
    DTypeInfo{DType::kI16, "I16", 2},        DTypeInfo{DType::kF16, "F16", 2},
    DTypeInfo{DType::kBF16, "BF16", 2},      DTypeInfo{DType::kU32, "U32", 4},
    DTypeInfo{DType::kI32, "I32", 4},        DTypeInfo{DType::kF32, "F32", 4},
    DTypeInfo{DType::kU64, "U64", 8},        DTypeInfo{DType::kI64, "I64", 8},
    DTypeInfo{DType::kF64, "F64", 8},
};

constexpr const DTypeInfo& dtype_info(DType type) { return kDTypes[static_cast<size_t>(type)]; }

constexpr bool dtypes_in_enum_order() {
  for (size_t i = 0; i < kDTypes.size(); ++i)
    if (static_cast<size_t>(kDTypes[i].type) != i) return false;
  return true;
}
static_assert(dtypes_in_enum_order());

/// nullptr for a name that is not in the list.
constexpr const DTypeInfo* find_dtype(std::string_view name) {
  for (const DTypeInfo& info : kDTypes)
    if (info.name == name) return &info;
  return nullptr;
}

}  // namespace upg
