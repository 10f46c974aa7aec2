// The forward pass for many tokens, of one run or of several: one launch an op, working memory for kBatchTokens.
#pragma once

#include <span>
#include <vector>

#include "cuda/batch.h"
#include "cuda/program_builder.h"

namespace upg::cuda {

constexpr uint64_t kBatchTokens = 2048;

/// Consecutive tokens of one timeline.
struct TokenRun {
  std::span<const int32_t> tokens;
  uint64_t position;  // of the first
  CachePlace place;
  const float* x = nullptr;  // [n, hidden] the residual stream before the first layer, on the host; or of the embedding
};

class BatchRunner {
 public:
  /// Takes its memory now; weights and decoder outlive it.
  BatchRunner(const PlainDecoder& decoder, const DeviceWeights& weights, uint32_t shared_limit, bool wide,
              uint32_t multiprocessors);

  /// Enqueues the tokens of the runs, one after the other; kBatchTokens at most in all, and those of runs of one token
  /// first. `stages` are those of build_program() for any of them: all have caches of one type.
  void run(std::span<const TokenRun> runs, const std::vector<Stage>& stages, Queue queue);

  /// Moves rows [row, row + n) of what the pass left to [as, as + n); as <= row.
  void keep(uint64_t row, uint64_t n, uint64_t as, Queue queue);
  /// Enqueues the logits of rows [begin, begin + n) of the last pass, a row a token unless moved; n at most kLogitRows:
  /// [n, vocab] on the device.
  float* logits(uint64_t begin, uint64_t n, Queue queue);
  static constexpr uint64_t kLogitRows = 128;

 private:
  RowParts multiply(const TrellisMatrix& w, Input input, RowParts x, float* residual, const float* norm, uint32_t n,
                    float* y, uint64_t stride, Queue queue);
  RowParts normed(const std::vector<TrellisMatrix>& parts, RowParts before, const float* norm, uint32_t n, Queue queue);
  void send_rows(std::span<const TokenRun> runs, Queue queue);

  const PlainDecoder& decoder_;
  const DeviceWeights& weights_;
  GemmResources resources_;
  PinnedMemory<TokenRow> host_rows_;
  DeviceMemory<TokenRow> rows_;
  PinnedMemory<CachePlace> host_places_;
  DeviceMemory<CachePlace> places_;
  DeviceMemory<float> stream_, wide_, mixed_, scales_, logits_, plain_, parts_, scratch_, partial_;
  DeviceMemory<uint16_t> halves_;
};

}  // namespace upg::cuda
