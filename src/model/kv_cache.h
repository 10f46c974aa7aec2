// Keys and values of past positions, one contiguous run of positions for each layer and head. Cache types are a list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/memory.h"
#include "kernels/kernel.h"

namespace upg {

/// How a head's vector is kept: a row of the list kv_types().
struct KvType {
  std::string_view id;  // "f16", "int8", "f32"
  uint64_t element_bytes;
  bool scaled;  // one float scale a vector
  /// vector [head_dim] to stored elements; returns the scale (1 where unscaled).
  float (*store)(const float* vector, uint64_t head_dim, std::byte* out);
};

std::span<const KvType> kv_types();
/// Throws Error(kInvalidArgument) listing the types.
const KvType& find_kv_type(std::string_view id);

struct KvShape {
  uint64_t layers;
  uint64_t heads;
  uint64_t head_dim;
};

class KvCache {
 public:
  /// Memory is reserved for `capacity` positions and touched as they fill.
  /// Throws Error(kOutOfMemory) with the arithmetic.
  KvCache(const KvShape& shape, uint64_t capacity, const KvType& type);

  uint64_t capacity() const { return capacity_; }
  uint64_t length() const { return length_; }
  const KvType& type() const { return *type_; }
  uint64_t bytes_per_position() const;

  /// Writes one head's key and value at `position` < capacity.
  void store(uint64_t layer, uint64_t head, uint64_t position, const float* key, const float* value);
  /// Positions [0, length) are valid; a shorter length forgets the rest.
  void set_length(uint64_t length) { length_ = length; }

  /// Attention of one token: query heads [group] over positions [first, end) of the shared head.
  void attend(uint64_t layer, uint64_t head, uint64_t first, uint64_t end, kernels::AttendArgs args) const;

 private:
  uint64_t at(uint64_t layer, uint64_t head, uint64_t position) const {  // index of a vector
    return (layer * shape_.heads + head) * capacity_ + position;
  }

  KvShape shape_;
  uint64_t capacity_;
  uint64_t length_ = 0;
  const KvType* type_;
  kernels::AttendFn attend_;
  Memory<std::byte> keys_, values_;          // [layers, heads, capacity, head_dim]
  Memory<float> key_scales_, value_scales_;  // [layers, heads, capacity], if scaled
};

}  // namespace upg
