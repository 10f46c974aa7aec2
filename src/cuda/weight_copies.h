// Weights of a model in float on the GPU, for as long as there is room.
#pragma once

#include <map>

#include "cuda/staging.h"
#include "ops/linear.h"

namespace upg::cuda {

class WeightCopies {
 public:
  static constexpr uint64_t kAlign = 32;  // floats: rows begin at multiples of so many
  static uint64_t stride(uint64_t cols) { return (cols + kAlign - 1) / kAlign * kAlign; }

  WeightCopies(ThreadPool& pool, Staging& staging, cudaStream_t stream)
      : pool_(pool), staging_(staging), stream_(stream) {}

  /// [rows][stride(cols)], zeros behind each row; valid until the next call of anything here.
  const float* of(const Linear& linear);
  void forget(const Linear& linear);

  /// Zeros for others, for which copies that were not used for longest give way.
  DeviceMemory<float> allocate(uint64_t n, const char* what);
  /// Sees to it that so many bytes are free, if there are copies to give up.
  void make_room(uint64_t bytes);

  /// To be called when much has just been allocated.
  void note_peak();
  uint64_t peak_bytes() const { return peak_; }

 private:
  struct Copy {
    DeviceMemory<float> memory;
    uint64_t bytes, used;
  };

  ThreadPool& pool_;
  Staging& staging_;
  cudaStream_t stream_;
  std::map<const Linear*, Copy> copies_;
  uint64_t clock_ = 0, peak_ = 0;
  Buffer<uint16_t> halves_;
};

}  // namespace upg::cuda
