#include "codec/codec.h"

#include "base/checked.h"
#include "base/error.h"

namespace upg {

uint64_t EncodedMatrix::bytes() const {
  uint64_t total = 0;
  for (const Component& component : components) total += component.data.size();
  return total;
}

Matrix open_encoded(const EncodedMatrix& encoded) {
  std::vector<TensorView> parts;
  for (const auto& component : encoded.components)
    parts.push_back({component.suffix, component.dtype, component.shape, component.data});
  return encoded.codec->open("matrix", encoded.rows, encoded.cols, parts);
}

const TensorView* find_part(std::span<const TensorView> parts, std::string_view suffix) {
  for (const TensorView& part : parts)
    if (part.name == suffix) return &part;
  return nullptr;
}

const TensorView& require_part(std::string_view name, std::span<const TensorView> parts, std::string_view suffix,
                               DType dtype, std::span<const uint64_t> shape) {
  const TensorView* part = find_part(parts, suffix);
  const std::string stored(suffix.empty() ? std::string(name) : fmt::format("{}.{}", name, suffix));
  if (part == nullptr) fail(ErrorCode::kInvalidFile, "{}: tensor {} is missing", name, stored);
  const std::vector<uint64_t> expected(shape.begin(), shape.end());
  if (part->dtype != dtype || part->shape != expected)
    fail(ErrorCode::kInvalidFile, "{}: is {} {}, must be {} {}", stored, dtype_info(part->dtype).name,
         shape_string(part->shape), dtype_info(dtype).name, shape_string(expected));
  const auto elements = checked_product(expected);
  const auto bytes = elements ? checked_mul(*elements, dtype_info(dtype).bytes) : std::nullopt;
  if (!bytes || part->data.size() != *bytes)
    fail(ErrorCode::kInvalidFile, "{}: has {} bytes, which is not what its shape {} needs; the file is damaged", stored,
         part->data.size(), shape_string(expected));
  return *part;
}

void require_aligned(std::string_view name, const TensorView& part) {
  if (reinterpret_cast<uintptr_t>(part.data.data()) % dtype_info(part.dtype).bytes != 0)
    fail(ErrorCode::kInvalidFile, "{}.{}: is not aligned to its element size in the file", name, part.name);
}

}  // namespace upg
