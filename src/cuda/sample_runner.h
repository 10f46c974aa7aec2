// Candidates for the next token on the GPU: memory that is kept, and what goes there and back.
#pragma once

#include "cuda/memory.h"
#include "cuda/sample.h"
#include "ops/candidates.h"

namespace upg::cuda {

class SampleRunner {
 public:
  static constexpr uint32_t kMostCount = 4096, kMostApart = 16384;

  SampleRunner();

  static bool has_room(const CandidateRequest& request) {
    return request.count <= kMostCount && request.apart.size() <= kMostApart;
  }
  /// Enqueues finding what `request`, for which there is room, asks for among logits [vocab_size] on the device, and
  /// copying it. Those set apart are -infinity afterwards.
  void enqueue(const CandidateRequest& request, float* logits, cudaStream_t stream);
  /// What was found, after the stream has come so far.
  void read(Candidates& out) const;

 private:
  uint32_t room_ = 0, apart_count_ = 0;  // of the last request
  PinnedMemory<int32_t> host_tokens_;
  DeviceMemory<int32_t> tokens_;
  DeviceMemory<uint32_t> bins_;
  // A SampleResult, the list, and the logits set apart.
  DeviceMemory<uint8_t> results_;
  PinnedMemory<uint8_t> host_results_;
};

}  // namespace upg::cuda
