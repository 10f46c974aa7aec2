// Keys and values of past positions, in blocks of 64 positions for each layer. Caches that begin alike share blocks,
// and copy one when they write to it. Layers that attend to a window keep little more than the window. Cache types are
// a list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/kernel.h"
#include "model/kv_blocks.h"

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

/// What one layer keeps of a position.
struct KvLayer {
  uint64_t heads;
  uint64_t key_dim;
  uint64_t value_dim;
  uint64_t window = 0;          // positions a token sees, itself included; 0: all before it
  bool values_in_keys = false;  // values are the first value_dim elements of the keys, and not stored again
};

struct KvShape {
  std::vector<KvLayer> layers;

  static KvShape uniform(uint64_t layers, uint64_t heads, uint64_t head_dim) {
    return {std::vector<KvLayer>(layers, {heads, head_dim, head_dim})};
  }
};

class KvCache {
 public:
  /// Memory comes from `pool` (one of its own where there is none) as the cache fills. Throws Error(kOutOfMemory) with
  /// the arithmetic where the system would not have it for `capacity` positions.
  KvCache(const KvShape& shape, uint64_t capacity, const KvType& type, std::shared_ptr<KvPool> pool = nullptr);

  uint64_t capacity() const { return capacity_; }
  uint64_t length() const { return length_; }
  const KvType& type() const { return *type_; }
  /// Bytes that a token at `position` reads in all layers.
  uint64_t bytes_read_at(uint64_t position) const;
  uint64_t bytes_held() const;  // in blocks, those included that others hold too
  /// Adds the blocks that it holds.
  void list_blocks(std::set<const void*>& blocks) const;

  /// Before a layer stores positions [length(), length() + n_tokens): takes blocks, copies the one that goes on if it
  /// is shared, and lets go of positions that have left the layer's window. Throws Error(kOutOfMemory).
  void make_room(uint64_t layer, uint64_t n_tokens);
  /// Writes one head's key and value at `position` < capacity, for which room was made. `value` is not read where
  /// values are parts of keys.
  void store(uint64_t layer, uint64_t head, uint64_t position, const float* key, const float* value);

  /// Positions [0, length) are valid; a shorter length forgets the rest. Where windows have moved past what would be
  /// needed to go on from there, all is forgotten. Returns the new length, `length` or 0.
  uint64_t set_length(uint64_t length);

  /// Becomes the first `length` <= other.length() positions of `other`, which has the same shape and type: shares its
  /// blocks. Returns false, and holds nothing, where a window of `other` has moved past what that needs.
  bool copy_from(const KvCache& other, uint64_t length);

  /// Forgets all, then puts `key` and `value` (of any layer's length) at every position before `length`, for measuring.
  void fill(uint64_t length, const float* key, const float* value);
  /// The same with a vector of random normal numbers.
  void fill(uint64_t length);

  /// The first position that a token at `position` sees in a layer.
  uint64_t first_seen(uint64_t layer, uint64_t position) const {
    const uint64_t window = layers_[layer].shape.window;
    return window != 0 && position + 1 > window ? position + 1 - window : 0;
  }
  /// Attention of one token: query heads [group] over positions [first, end) of the shared head.
  void attend(uint64_t layer, uint64_t head, uint64_t first, uint64_t end, kernels::AttendArgs args) const;

 private:
  // In a block lie keys [heads, 64, key_dim], values [heads, 64, value_dim], and the scales of both [heads, 64].
  struct Layer {
    KvLayer shape;
    uint64_t values_at = 0, key_scales_at = 0, value_scales_at = 0, block_bytes = 0;
    uint64_t first = 0;  // the position that lies first
    std::vector<KvBlock> blocks;
    std::vector<unsigned char*> memory;  // of the blocks
  };

  Layer lay_out(const KvLayer& shape) const;
  KvBlock take_block(const Layer& layer) const;
  void copy_positions(const Layer& layer, const unsigned char* from, unsigned char* to, uint64_t n) const;
  static void keep_blocks(Layer& layer, uint64_t begin, uint64_t end);

  std::shared_ptr<KvPool> pool_;
  std::vector<Layer> layers_;
  uint64_t capacity_;
  uint64_t length_ = 0;
  const KvType* type_;
  kernels::AttendFn attend_;
};

}  // namespace upg
