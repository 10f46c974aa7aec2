// Candidates for the next token on the GPU: memory that is kept, and what goes there and back.
#pragma once

#include <span>

#include "cuda/memory.h"
#include "cuda/sample.h"
#include "ops/candidates.h"

namespace upg::cuda {

class SampleRunner {
 public:
  static constexpr uint32_t kMostCount = 4096, kMostApart = 16384;

  /// One choice of a next token.
  struct Row {
    CandidateRequest request;  // for which there is room
    float* logits;             // [vocab_size] on the device; those set apart are -infinity afterwards
    Candidates* out;
  };

  explicit SampleRunner(uint32_t most_rows);

  static bool has_room(const CandidateRequest& request) {
    return request.count <= kMostCount && request.apart.size() <= kMostApart;
  }
  /// Enqueues finding what `rows`, at most most_rows, ask for, and copying it.
  void enqueue(std::span<const Row> rows, cudaStream_t stream);
  /// Fills their `out`, after the stream has come so far.
  void read() const;

 private:
  struct Asked {
    uint32_t room, apart_count;
    Candidates* out;
  };
  std::vector<Asked> asked_;           // by the last rows
  PinnedMemory<int32_t> host_tokens_;  // [most_rows][kMostApart]
  DeviceMemory<int32_t> tokens_;       // the same
  DeviceMemory<uint32_t> bins_;        // [most_rows][2][kSampleBins]
  // [most_rows] of a SampleResult, the list, and the logits set apart.
  DeviceMemory<uint8_t> results_;
  PinnedMemory<uint8_t> host_results_;
};

}  // namespace upg::cuda
