#include "model/kv_cache.h"

#include <fmt/ranges.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/checked.h"
#include "base/error.h"

namespace upg {
namespace {

float store_f16(const float* vector, uint64_t head_dim, std::byte* out) {
  static const auto run = kernels::select(kernels::to_f16_kernels(), "f32").run;
  run({vector, reinterpret_cast<uint16_t*>(out), head_dim});
  return 1.0f;
}

float store_f32(const float* vector, uint64_t head_dim, std::byte* out) {
  std::memcpy(out, vector, head_dim * sizeof(float));
  return 1.0f;
}

float store_int8(const float* vector, uint64_t head_dim, std::byte* out) {
  float largest = 0;
  for (uint64_t i = 0; i < head_dim; ++i) largest = std::max(largest, std::abs(vector[i]));
  if (largest < kernels::kQuantizeFloor) {
    std::memset(out, 0, head_dim);
    return 0.0f;
  }
  const float inverse = 127.0f / largest;
  for (uint64_t i = 0; i < head_dim; ++i) {
    const float scaled = std::nearbyint(vector[i] * inverse);
    const auto q = std::abs(scaled) <= 127 ? static_cast<int8_t>(scaled) : int8_t{0};  // not finite: no int8
    std::memcpy(out + i, &q, 1);
  }
  return largest / 127.0f;
}

constexpr KvType kTypes[] = {
    {"f32", 4, false, store_f32},
    {"f16", 2, false, store_f16},
    {"int8", 1, true, store_int8},
};

}  // namespace

std::span<const KvType> kv_types() { return kTypes; }

const KvType& find_kv_type(std::string_view id) {
  std::vector<std::string_view> known;
  for (const KvType& type : kTypes) {
    if (type.id == id) return type;
    known.push_back(type.id);
  }
  fail(ErrorCode::kInvalidArgument, "KV cache type \"{}\" is not known; choose one of: {}", id, fmt::join(known, ", "));
}

KvCache::KvCache(const KvShape& shape, uint64_t capacity, const KvType& type)
    : shape_(shape),
      capacity_(capacity),
      type_(&type),
      attend_(kernels::select(kernels::attend_kernels(), type.id).run) {
  const uint64_t dims[] = {shape.layers, shape.heads, capacity, shape.head_dim, 2 * type.element_bytes};
  const auto bytes = checked_product(dims);
  if (bytes) {
    const uint64_t vectors = shape.layers * shape.heads * capacity;
    keys_ = allocate<std::byte>(*bytes / 2);
    values_ = allocate<std::byte>(*bytes / 2);
    if (type.scaled) {
      key_scales_ = allocate<float>(vectors);
      value_scales_ = allocate<float>(vectors);
    }
  }
  if (!keys_ || !values_ || (type.scaled && (!key_scales_ || !value_scales_)))
    fail(ErrorCode::kOutOfMemory,
         "no memory for the KV cache: {} layers x {} heads x {} positions x {} elements x 2 x {} bytes; "
         "ask for a shorter context or the int8 cache",
         shape.layers, shape.heads, capacity, shape.head_dim, type.element_bytes);
}

uint64_t KvCache::bytes_per_position() const {
  return 2 * shape_.layers * shape_.heads * (shape_.head_dim * type_->element_bytes + (type_->scaled ? 4 : 0));
}

void KvCache::store(uint64_t layer, uint64_t head, uint64_t position, const float* key, const float* value) {
  const uint64_t i = at(layer, head, position);
  const uint64_t vector_bytes = shape_.head_dim * type_->element_bytes;
  const float key_scale = type_->store(key, shape_.head_dim, keys_.get() + i * vector_bytes);
  const float value_scale = type_->store(value, shape_.head_dim, values_.get() + i * vector_bytes);
  if (type_->scaled) {
    key_scales_[i] = key_scale;
    value_scales_[i] = value_scale;
  }
}

void KvCache::attend(uint64_t layer, uint64_t head, uint64_t first, uint64_t end, kernels::AttendArgs args) const {
  const uint64_t i = at(layer, head, first);
  const uint64_t vector_bytes = shape_.head_dim * type_->element_bytes;
  args.k = keys_.get() + i * vector_bytes;
  args.v = values_.get() + i * vector_bytes;
  args.k_scale = type_->scaled ? key_scales_.get() + i : nullptr;
  args.v_scale = type_->scaled ? value_scales_.get() + i : nullptr;
  args.head_dim = shape_.head_dim;
  args.n_positions = end - first;
  attend_(args);
}

}  // namespace upg
