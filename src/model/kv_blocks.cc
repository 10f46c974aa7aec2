#include "model/kv_blocks.h"

#include <algorithm>
#include <deque>

namespace upg {
namespace {

// Blocks are cut from pieces of this size, for which the system gives huge pages.
constexpr uint64_t kPieceBytes = uint64_t{16} << 20;

}  // namespace

struct KvBlock::Header {
  std::byte* data = nullptr;
  KvPool* pool = nullptr;
  uint64_t bytes = 0;
  std::atomic<uint32_t> holders{0};
};

struct KvPool::Size {
  std::vector<Memory<std::byte>> pieces;
  std::deque<KvBlock::Header> blocks;  // stay where they are as more come
  std::vector<KvBlock::Header*> free;
};

KvBlock::KvBlock(const KvBlock& other) noexcept : block_(other.block_) {
  if (block_) block_->holders.fetch_add(1, std::memory_order_relaxed);
}

KvBlock::~KvBlock() {
  if (block_ && block_->holders.fetch_sub(1, std::memory_order_acq_rel) == 1) block_->pool->give_back(block_);
}

std::byte* KvBlock::data() const { return block_->data; }
bool KvBlock::shared() const { return block_->holders.load(std::memory_order_acquire) > 1; }

KvPool::KvPool() = default;
KvPool::~KvPool() = default;

KvBlock KvPool::take(uint64_t bytes) {
  const std::scoped_lock lock(mutex_);
  Size& size = sizes_[bytes];
  if (size.free.empty()) {
    const uint64_t n = std::max<uint64_t>(1, kPieceBytes / std::max<uint64_t>(1, bytes));
    if (bytes > PTRDIFF_MAX / n) return {};
    Memory<std::byte> piece = allocate<std::byte>(n * bytes);
    if (!piece) return {};
    size.free.reserve(size.blocks.size() + n);  // so that giving back never allocates
    for (uint64_t i = n; i-- > 0;) {
      KvBlock::Header& block = size.blocks.emplace_back();
      block.data = piece.get() + i * bytes;
      block.pool = this;
      block.bytes = bytes;
      size.free.push_back(&block);
    }
    size.pieces.push_back(std::move(piece));
  }
  KvBlock::Header* block = size.free.back();
  size.free.pop_back();
  block->holders.store(1, std::memory_order_relaxed);
  ++held_;
  return KvBlock(block);
}

void KvPool::give_back(KvBlock::Header* block) {
  const std::scoped_lock lock(mutex_);
  sizes_[block->bytes].free.push_back(block);
  --held_;
}

}  // namespace upg
