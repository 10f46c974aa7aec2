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

// Tokens of a pass that a layer with a window has room for at first.
constexpr uint64_t kPassTokens = 512;

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
    : capacity_(capacity), type_(&type), attend_(kernels::select(kernels::attend_kernels(), type.id).run) {
  for (const KvLayer& layer : shape.layers) {
    const bool windowed = layer.window != 0 && layer.window < capacity && capacity - layer.window > kPassTokens;
    layers_.push_back(reserve(layer, windowed ? layer.window + kPassTokens : capacity));
  }
}

KvCache::Layer KvCache::reserve(const KvLayer& shape, uint64_t room) const {
  Layer layer;
  layer.shape = shape;
  layer.room = room;
  const uint64_t value_dim = shape.values_in_keys ? 0 : shape.value_dim;
  const uint64_t vectors[] = {shape.heads, room};
  const uint64_t keys[] = {shape.heads, room, shape.key_dim, type_->element_bytes};
  const uint64_t values[] = {shape.heads, room, value_dim, type_->element_bytes};
  bool done = checked_product(vectors) && checked_product(keys) && checked_product(values);
  if (done) {
    layer.keys = allocate<std::byte>(*checked_product(keys));
    if (value_dim) layer.values = allocate<std::byte>(*checked_product(values));
    if (type_->scaled) {
      layer.key_scales = allocate<float>(*checked_product(vectors));
      if (value_dim) layer.value_scales = allocate<float>(*checked_product(vectors));
    }
    done = layer.keys && (!value_dim || layer.values) &&
           (!type_->scaled || (layer.key_scales && (!value_dim || layer.value_scales)));
  }
  if (!done)
    fail(ErrorCode::kOutOfMemory,
         "no memory for the KV cache: a layer has {} heads x {} positions x {} elements x {} bytes; ask for a shorter "
         "context or the int8 cache",
         shape.heads, room, shape.key_dim + value_dim, type_->element_bytes);
  return layer;
}

uint64_t KvCache::bytes_read_at(uint64_t position) const {
  uint64_t bytes = 0;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const KvLayer& s = layers_[i].shape;
    const uint64_t scale = type_->scaled ? 4 : 0;
    const uint64_t vector =
        s.key_dim * type_->element_bytes + scale + (s.values_in_keys ? 0 : s.value_dim * type_->element_bytes + scale);
    bytes += s.heads * vector * (position + 1 - first_seen(i, position));
  }
  return bytes;
}

uint64_t KvCache::bytes_reserved() const {
  uint64_t bytes = 0;
  for (const Layer& layer : layers_) {
    const KvLayer& s = layer.shape;
    const uint64_t elements = s.key_dim + (s.values_in_keys ? 0 : s.value_dim);
    bytes += s.heads * layer.room * (elements * type_->element_bytes + (type_->scaled ? 8 : 0));
  }
  return bytes;
}

void KvCache::make_room(uint64_t index, uint64_t n_tokens) {
  Layer& layer = layers_[index];
  if (length_ + n_tokens <= layer.first + layer.room) return;
  const uint64_t first = first_seen(index, length_);  // earlier ones are not needed any more
  const uint64_t kept = length_ - first;
  Layer larger;
  Layer* to = &layer;
  if (kept + n_tokens > layer.room) to = &(larger = reserve(layer.shape, kept + std::max(n_tokens, kPassTokens)));
  const auto move = [&](auto& target, const auto& source, uint64_t width) {  // elements of a position
    if (!source) return;
    for (uint64_t head = 0; head < layer.shape.heads; ++head)
      std::memmove(&target[head * to->room * width], &source[(head * layer.room + first - layer.first) * width],
                   kept * width * sizeof source[0]);
  };
  move(to->keys, layer.keys, layer.shape.key_dim * type_->element_bytes);
  move(to->values, layer.values, layer.shape.value_dim * type_->element_bytes);
  move(to->key_scales, layer.key_scales, 1);
  move(to->value_scales, layer.value_scales, 1);
  to->first = first;
  if (to != &layer) layer = std::move(larger);
}

uint64_t KvCache::set_length(uint64_t length) {
  if (length < length_) {
    for (size_t i = 0; i < layers_.size(); ++i)
      if (layers_[i].first > first_seen(i, length)) length = 0;
    if (length == 0)
      for (Layer& layer : layers_) layer.first = 0;
  }
  return length_ = length;
}

void KvCache::store(uint64_t index, uint64_t head, uint64_t position, const float* key, const float* value) {
  Layer& layer = layers_[index];
  const KvLayer& s = layer.shape;
  const uint64_t i = head * layer.room + position - layer.first;
  const float key_scale = type_->store(key, s.key_dim, layer.keys.get() + i * s.key_dim * type_->element_bytes);
  if (type_->scaled) layer.key_scales[i] = key_scale;
  if (s.values_in_keys) return;
  const float value_scale =
      type_->store(value, s.value_dim, layer.values.get() + i * s.value_dim * type_->element_bytes);
  if (type_->scaled) layer.value_scales[i] = value_scale;
}

bool KvCache::copy_from(const KvCache& other, uint64_t length) {
  set_length(0);
  for (size_t i = 0; i < layers_.size(); ++i)
    if (other.layers_[i].first > first_seen(i, length)) return false;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& from = other.layers_[i];
    Layer& to = layers_[i];
    const uint64_t first = length > to.room ? first_seen(i, length) : from.first, n = length - first;
    to.first = first;
    const auto copy = [&](auto& target, const auto& source, uint64_t width) {  // elements of a position
      if (!source) return;
      for (uint64_t head = 0; head < to.shape.heads; ++head)
        std::memcpy(&target[head * to.room * width], &source[(head * from.room + first - from.first) * width],
                    n * width * sizeof source[0]);
    };
    copy(to.keys, from.keys, to.shape.key_dim * type_->element_bytes);
    copy(to.values, from.values, to.shape.value_dim * type_->element_bytes);
    copy(to.key_scales, from.key_scales, 1);
    copy(to.value_scales, from.value_scales, 1);
  }
  length_ = length;
  return true;
}

void KvCache::fill(uint64_t length, const float* key, const float* value) {
  for (size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = layers_[i];
    layer.first = length > layer.room ? first_seen(i, length) : 0;
    for (uint64_t head = 0; head < layer.shape.heads; ++head)
      for (uint64_t position = layer.first; position < length; ++position) store(i, head, position, key, value);
  }
  length_ = length;
}

void KvCache::attend(uint64_t index, uint64_t head, uint64_t first, uint64_t end, kernels::AttendArgs args) const {
  const Layer& layer = layers_[index];
  const KvLayer& s = layer.shape;
  const uint64_t i = head * layer.room + first - layer.first;
  args.k = layer.keys.get() + i * s.key_dim * type_->element_bytes;
  args.k_scale = type_->scaled ? layer.key_scales.get() + i : nullptr;
  args.v = s.values_in_keys ? args.k : layer.values.get() + i * s.value_dim * type_->element_bytes;
  args.v_scale = !type_->scaled ? nullptr : s.values_in_keys ? args.k_scale : layer.value_scales.get() + i;
  args.head_dim = s.key_dim;
  args.value_dim = s.value_dim;
  args.v_stride = s.values_in_keys ? s.key_dim : s.value_dim;
  args.n_positions = end - first;
  attend_(args);
}

}  // namespace upg
