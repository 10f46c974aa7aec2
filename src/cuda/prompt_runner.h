// The forward pass for many tokens: one launch an op, working memory for kPromptTokens of them.
#pragma once

#include <span>

#include "cuda/program_builder.h"
#include "cuda/prompt.h"

namespace upg::cuda {

constexpr uint64_t kPromptTokens = 2048;

class PromptRunner {
 public:
  /// Takes its memory now; weights and decoder outlive it.
  PromptRunner(const PlainDecoder& decoder, const DeviceWeights& weights, uint32_t shared_limit, bool wide,
               uint32_t multiprocessors);

  /// Enqueues `tokens` (at most kPromptTokens) at `position` and on; `stages` are those of build_program() for the
  /// cache to fill. `x` [tokens, hidden], on the host: the residual stream that goes into the first layer, not needed
  /// any more on return; nullptr: the tokens' embeddings do.
  void run(std::span<const int32_t> tokens, const float* x, uint64_t position, const std::vector<Stage>& stages,
           cudaStream_t stream);

  /// Enqueues the logits of tokens [begin, begin + n) of the last run, n at most kLogitRows: [n, vocab] on the device.
  const float* logits(uint64_t begin, uint64_t n, cudaStream_t stream);
  static constexpr uint64_t kLogitRows = 128;

 private:
  void multiply(const TrellisMatrix& w, Input input, const float* x, uint64_t stride, const float* norm, uint32_t n,
                float* y, uint64_t y_stride, bool add, cudaStream_t stream);

  const PlainDecoder& decoder_;
  const DeviceWeights& weights_;
  GemmResources resources_;
  PinnedMemory<int32_t> host_tokens_;
  DeviceMemory<int32_t> tokens_;
  DeviceMemory<float> stream_, wide_, mixed_, scales_, logits_, plain_, parts_;
  DeviceMemory<uint16_t> halves_;
};

}  // namespace upg::cuda
