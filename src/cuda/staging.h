// Memory on the GPU that is kept, copies to and from it, and sizes as kernels take them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/thread_pool.h"
#include "cuda/memory.h"

namespace upg::cuda {

// Sizes and counts as kernels take them: 32 bits hold what the matrices of a model and the tokens of a run have.
inline uint32_t narrow(uint64_t n) { return static_cast<uint32_t>(n); }

// Memory on the GPU that grows and is kept.
template <typename T>
class Buffer {
 public:
  T* at_least(uint64_t n, const char* what) {
    if (n > size_) {
      memory_.reset();
      memory_ = allocate_device<T>(n, what);
      size_ = n;
    }
    return memory_.get();
  }
  T* get() const { return memory_.get(); }

 private:
  DeviceMemory<T> memory_;
  uint64_t size_ = 0;
};

// Copies between pageable memory and the GPU through two pinned buffers: while one is on its way, all threads fill or
// empty the other.
class Staging {
 public:
  Staging(ThreadPool& pool, cudaStream_t stream) : pool_(pool), stream_(stream) {
    for (Half& half : halves_) {
      half.bytes = allocate_pinned<uint8_t>(kBytes, "copies");
      check(cudaEventCreateWithFlags(&half.done, cudaEventDisableTiming), "events");
    }
  }
  ~Staging() {
    for (Half& half : halves_) cudaEventDestroy(half.done);
  }

  /// rows of `width` bytes, `pitch` bytes apart on either side. Returns when `from` may change.
  void to_device(void* to, uint64_t to_pitch, const void* from, uint64_t from_pitch, uint64_t width, uint64_t rows) {
    pieces(width, rows, [&](Half& half, uint64_t row, uint64_t n, uint64_t offset, uint64_t bytes) {
      check(cudaEventSynchronize(half.done), "copying to the GPU");
      copy(half.bytes.get(), bytes, static_cast<const uint8_t*>(from) + row * from_pitch + offset, from_pitch, bytes,
           n);
      check(cudaMemcpy2DAsync(static_cast<uint8_t*>(to) + row * to_pitch + offset, to_pitch, half.bytes.get(), bytes,
                              bytes, n, cudaMemcpyHostToDevice, stream_),
            "copying to the GPU");
      check(cudaEventRecord(half.done, stream_), "copying to the GPU");
    });
  }
  void from_device(void* to, uint64_t to_pitch, const void* from, uint64_t from_pitch, uint64_t width, uint64_t rows) {
    struct Piece {
      Half* half;
      uint64_t row, n, offset, bytes;
    };
    Piece last{};
    const auto empty = [&](const Piece& p) {
      if (!p.half) return;
      check(cudaEventSynchronize(p.half->done), "copying from the GPU");
      copy(static_cast<uint8_t*>(to) + p.row * to_pitch + p.offset, to_pitch, p.half->bytes.get(), p.bytes, p.bytes,
           p.n);
    };
    pieces(width, rows, [&](Half& half, uint64_t row, uint64_t n, uint64_t offset, uint64_t bytes) {
      check(cudaEventSynchronize(half.done), "copying from the GPU");
      check(cudaMemcpy2DAsync(half.bytes.get(), bytes, static_cast<const uint8_t*>(from) + row * from_pitch + offset,
                              from_pitch, bytes, n, cudaMemcpyDeviceToHost, stream_),
            "copying from the GPU");
      check(cudaEventRecord(half.done, stream_), "copying from the GPU");
      empty(last);
      last = {&half, row, n, offset, bytes};
    });
    empty(last);
  }

 private:
  static constexpr uint64_t kBytes = 16 << 20;
  struct Half {
    PinnedMemory<uint8_t> bytes;
    cudaEvent_t done;
  };

  template <typename Piece>
  void pieces(uint64_t width, uint64_t rows, Piece&& piece) {
    const uint64_t bytes = std::min(width, kBytes);
    const uint64_t most = bytes ? kBytes / bytes : 1;
    for (uint64_t row = 0; row < rows; row += most)
      for (uint64_t offset = 0; offset < width; offset += bytes) {
        next_ ^= 1;
        piece(halves_[next_], row, std::min(most, rows - row), offset, std::min(bytes, width - offset));
      }
  }
  void copy(uint8_t* to, uint64_t to_pitch, const uint8_t* from, uint64_t from_pitch, uint64_t bytes, uint64_t rows) {
    if (to_pitch == bytes && from_pitch == bytes) {
      pool_.split(bytes * rows, 1 << 16,
                  [&](uint64_t begin, uint64_t end, unsigned) { std::memcpy(to + begin, from + begin, end - begin); });
    } else {
      pool_.split(rows, std::max<uint64_t>(1, (1 << 16) / bytes), [&](uint64_t begin, uint64_t end, unsigned) {
        for (uint64_t r = begin; r < end; ++r) std::memcpy(to + r * to_pitch, from + r * from_pitch, bytes);
      });
    }
  }

  ThreadPool& pool_;
  cudaStream_t stream_;
  Half halves_[2];
  unsigned next_ = 0;
};

}  // namespace upg::cuda
