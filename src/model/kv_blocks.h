// Memory for keys and values in blocks that several caches can hold: a block goes back when the last of them lets go.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/memory.h"

namespace upg {

class KvPool;

/// A hold on a block: copies hold the same one. Empty, or valid as long as its pool.
class KvBlock {
 public:
  KvBlock() = default;
  KvBlock(const KvBlock& other) noexcept;
  KvBlock(KvBlock&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  KvBlock& operator=(KvBlock other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~KvBlock();

  explicit operator bool() const { return block_ != nullptr; }
  std::byte* data() const;
  bool shared() const;  // whether others hold it too

 private:
  friend class KvPool;
  struct Header;
  explicit KvBlock(Header* block) : block_(block) {}
  Header* block_ = nullptr;
};

/// Where blocks come from and go to, by size. For any thread. Outlives its blocks.
class KvPool {
 public:
  KvPool();
  ~KvPool();
  KvPool(const KvPool&) = delete;

  /// A block of so many bytes, whose content is of any former use. Empty if the system has no more memory.
  KvBlock take(uint64_t bytes);
  uint64_t blocks_held() const { return held_; }  // by anybody

 private:
  friend class KvBlock;
  struct Size;
  void give_back(KvBlock::Header* block);

  std::mutex mutex_;
  std::map<uint64_t, Size> sizes_;
  std::atomic<uint64_t> held_{0};
};

}  // namespace upg
