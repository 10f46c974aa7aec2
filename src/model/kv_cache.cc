#include "model/kv_cache.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
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

constexpr uint64_t kBlockPositions = 64;
constexpr uint64_t kKeptBehind = 512;  // positions before a window, for going back a little

uint64_t blocks_of(uint64_t positions) { return positions / kBlockPositions + (positions % kBlockPositions != 0); }

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

KvCache::KvCache(const KvShape& shape, uint64_t capacity, const KvType& type, std::shared_ptr<KvPool> pool)
    : pool_(pool ? std::move(pool) : std::make_shared<KvPool>()),
      capacity_(capacity),
      type_(&type),
      attend_(kernels::select(kernels::attend_kernels(), type.id).run) {
  // What it may come to is asked for and let go, so that a context that cannot be is refused now and not when it fills.
  uint64_t bytes = 0;
  for (const KvLayer& layer : shape.layers) {
    layers_.push_back(lay_out(layer));
    const bool windowed = layer.window != 0 && layer.window < capacity && capacity - layer.window > kKeptBehind;
    const uint64_t all[] = {blocks_of(windowed ? layer.window + kKeptBehind : capacity), layers_.back().block_bytes};
    const auto of_layer = checked_product(all);
    if (!of_layer || __builtin_add_overflow(bytes, *of_layer, &bytes)) bytes = UINT64_MAX;
  }
  if (allocate<std::byte>(bytes)) return;
  const KvLayer& first = shape.layers.front();
  fail(ErrorCode::kOutOfMemory,
       "no memory for the KV cache: {} layers, the first with {} heads x {} positions x {} elements x {} bytes; ask "
       "for a "
       "shorter context or the int8 cache",
       shape.layers.size(), first.heads, capacity, first.key_dim + (first.values_in_keys ? 0 : first.value_dim),
       type.element_bytes);
}

KvCache::Layer KvCache::lay_out(const KvLayer& shape) const {
  const auto aligned = [](uint64_t bytes) { return (bytes + 63) / 64 * 64; };
  Layer layer;
  layer.shape = shape;
  const uint64_t most[] = {shape.heads, kBlockPositions, shape.key_dim + shape.value_dim + 64, sizeof(double)};
  if (!checked_product(most)) {
    layer.block_bytes = UINT64_MAX;
    return layer;
  }
  const uint64_t vectors = shape.heads * kBlockPositions, scales = type_->scaled ? vectors * sizeof(float) : 0;
  layer.values_at = shape.values_in_keys ? 0 : aligned(vectors * shape.key_dim * type_->element_bytes);
  layer.key_scales_at = aligned(layer.values_at + vectors * (shape.values_in_keys ? shape.key_dim : shape.value_dim) *
                                                      type_->element_bytes);
  layer.value_scales_at = shape.values_in_keys ? layer.key_scales_at : aligned(layer.key_scales_at + scales);
  layer.block_bytes = aligned(layer.value_scales_at + scales);
  return layer;
}

KvBlock KvCache::take_block(const Layer& layer) const {
  KvBlock block = pool_->take(layer.block_bytes);
  if (!block)
    fail(ErrorCode::kOutOfMemory, "no memory for the KV cache: the system gives no {} bytes for {} more positions",
         layer.block_bytes, kBlockPositions);
  return block;
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

uint64_t KvCache::bytes_held() const {
  uint64_t bytes = 0;
  for (const Layer& layer : layers_) bytes += layer.blocks.size() * layer.block_bytes;
  return bytes;
}

void KvCache::list_blocks(std::set<const void*>& blocks) const {
  for (const Layer& layer : layers_) blocks.insert(layer.memory.begin(), layer.memory.end());
}

// Blocks of positions [begin, end) alone; begin is a block's first position, or before all.
void KvCache::keep_blocks(Layer& layer, uint64_t begin, uint64_t end) {
  const uint64_t kept = end > layer.first ? std::min<uint64_t>(blocks_of(end - layer.first), layer.blocks.size()) : 0;
  const uint64_t gone = begin > layer.first ? std::min((begin - layer.first) / kBlockPositions, kept) : 0;
  const auto trim = [&](auto& list) {
    list.resize(kept);
    list.erase(list.begin(), list.begin() + static_cast<ptrdiff_t>(gone));
  };
  trim(layer.blocks);
  trim(layer.memory);
  layer.first = layer.blocks.empty() && end == 0 ? 0 : layer.first + gone * kBlockPositions;
}

// The first n positions of a block.
void KvCache::copy_positions(const Layer& layer, const unsigned char* from, unsigned char* to, uint64_t n) const {
  const KvLayer& s = layer.shape;
  const auto copy = [&](uint64_t at, uint64_t width) {  // bytes of a position
    for (uint64_t head = 0; head < s.heads; ++head) {
      const uint64_t begin = at + head * kBlockPositions * width;
      std::memcpy(to + begin, from + begin, n * width);
    }
  };
  copy(0, s.key_dim * type_->element_bytes);
  if (!s.values_in_keys) copy(layer.values_at, s.value_dim * type_->element_bytes);
  if (!type_->scaled) return;
  copy(layer.key_scales_at, sizeof(float));
  if (!s.values_in_keys) copy(layer.value_scales_at, sizeof(float));
}

void KvCache::make_room(uint64_t index, uint64_t n_tokens) {
  Layer& layer = layers_[index];
  const uint64_t window = layer.shape.window;
  if (window != 0 && length_ + n_tokens - layer.first > window + kKeptBehind)
    keep_blocks(layer, first_seen(index, length_), length_);
  const uint64_t whole = (length_ - layer.first) / kBlockPositions, rest = (length_ - layer.first) % kBlockPositions;
  if (rest != 0 && whole < layer.blocks.size() && layer.blocks[whole].shared()) {
    KvBlock own = take_block(layer);
    auto* to = reinterpret_cast<unsigned char*>(own.data());
    copy_positions(layer, layer.memory[whole], to, rest);
    layer.blocks[whole] = std::move(own);
    layer.memory[whole] = to;
  }
  while (layer.first + layer.blocks.size() * kBlockPositions < length_ + n_tokens) {
    layer.blocks.push_back(take_block(layer));
    layer.memory.push_back(reinterpret_cast<unsigned char*>(layer.blocks.back().data()));
  }
}

uint64_t KvCache::set_length(uint64_t length) {
  if (length < length_)
    for (size_t i = 0; i < layers_.size(); ++i)
      if (layers_[i].first > first_seen(i, length)) length = 0;
  for (Layer& layer : layers_) keep_blocks(layer, 0, length);
  return length_ = length;
}

void KvCache::store(uint64_t index, uint64_t head, uint64_t position, const float* key, const float* value) {
  const Layer& layer = layers_[index];
  const KvLayer& s = layer.shape;
  unsigned char* memory = layer.memory[(position - layer.first) / kBlockPositions];
  const uint64_t i = head * kBlockPositions + (position - layer.first) % kBlockPositions;
  const auto put = [&](const float* vector, uint64_t dim, uint64_t at, uint64_t scales_at) {
    const float scale =
        type_->store(vector, dim, reinterpret_cast<std::byte*>(memory + at + i * dim * type_->element_bytes));
    if (type_->scaled) std::memcpy(memory + scales_at + i * sizeof scale, &scale, sizeof scale);
  };
  put(key, s.key_dim, 0, layer.key_scales_at);
  if (!s.values_in_keys) put(value, s.value_dim, layer.values_at, layer.value_scales_at);
}

bool KvCache::copy_from(const KvCache& other, uint64_t length) {
  set_length(0);
  for (size_t i = 0; i < layers_.size(); ++i)
    if (other.layers_[i].first > first_seen(i, length)) return false;
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i].first = other.layers_[i].first;
    layers_[i].blocks = other.layers_[i].blocks;
    layers_[i].memory = other.layers_[i].memory;
    keep_blocks(layers_[i], 0, length);
  }
  length_ = length;
  return true;
}

void KvCache::fill(uint64_t length, const float* key, const float* value) {
  set_length(0);
  for (size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = layers_[i];
    const uint64_t window = layer.shape.window;
    if (window != 0 && length > window + kKeptBehind)
      layer.first = first_seen(i, length) / kBlockPositions * kBlockPositions;
    length_ = layer.first;
    make_room(i, length - layer.first);
    for (uint64_t head = 0; head < layer.shape.heads; ++head)
      for (uint64_t position = layer.first; position < length; ++position) store(i, head, position, key, value);
  }
  length_ = length;
}

void KvCache::fill(uint64_t length) {
  uint64_t longest = 0;
  for (const Layer& layer : layers_) longest = std::max({longest, layer.shape.key_dim, layer.shape.value_dim});
  std::mt19937 random;
  std::normal_distribution<float> normal;
  std::vector<float> vector(longest);
  for (float& x : vector) x = normal(random);
  fill(length, vector.data(), vector.data());
}

void KvCache::attend(uint64_t index, uint64_t head, uint64_t first, uint64_t end, kernels::AttendArgs args) const {
  const Layer& layer = layers_[index];
  const KvLayer& s = layer.shape;
  const uint64_t vectors = head * kBlockPositions;
  args.blocks = layer.memory.data() + (first - layer.first) / kBlockPositions;
  args.first = (first - layer.first) % kBlockPositions;
  args.block_positions = kBlockPositions;
  args.k_at = vectors * s.key_dim * type_->element_bytes;
  args.v_at = s.values_in_keys ? args.k_at : layer.values_at + vectors * s.value_dim * type_->element_bytes;
  args.k_scale_at = layer.key_scales_at + vectors * sizeof(float);
  args.v_scale_at = layer.value_scales_at + vectors * sizeof(float);
  args.head_dim = s.key_dim;
  args.value_dim = s.value_dim;
  args.v_stride = s.values_in_keys ? s.key_dim : s.value_dim;
  args.n_positions = end - first;
  attend_(args);
}

}  // namespace upg
