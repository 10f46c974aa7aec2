// A loaded model: tokens in, logits out. arch_table.h lists the architectures.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/decoder.h"
#include "model/kv_cache.h"
#include "ops/linear.h"

namespace upg {

/// What callers need to know of any architecture.
struct ModelShape {
  uint64_t vocab_size = 0;
  uint64_t hidden_size = 0;
  uint64_t max_context = 0;  // positions the model was made for
  uint64_t layers = 0;
  KvShape kv{};
};

/// Which positions of a forward pass yield logits.
struct LogitsRange {
  uint64_t begin = 0;  // index into the tokens of the pass
  uint64_t end = 0;
};

class Model {
 public:
  explicit Model(Decoder decoder);

  static constexpr uint64_t kChunk = 512;  // tokens of a prompt that are best run together

  /// The model as data, for devices that run it in their own way.
  const Decoder& decoder() const { return d_; }
  const ModelShape& shape() const { return shape_; }

  /// Runs `tokens` (valid ids, at least one) at positions cache.length() and on, appending to the cache, which has
  /// room. logits [range.end - range.begin, vocab_size] receives those of the positions in `range`; may be empty. The
  /// same tokens give the same logits whatever the number of threads.
  void forward(OpContext& context, std::span<const int32_t> tokens, Activations activations, KvCache& cache,
               LogitsRange range, float* logits);
  /// The same for several sequences at once: `tokens` of all runs, one after the other. Returns the residual stream
  /// [tokens, hidden_size] after the last layer, valid until the next call; head() goes on from any of its rows. With
  /// fewer `layers`, only the first so many run, over caches of no more than these.
  const float* forward(OpContext& context, std::span<const int32_t> tokens, Activations activations, const Batch& batch,
                       uint64_t layers = UINT64_MAX);

  // The steps of forward(), for those who go through a model layer by layer. `x` [n_tokens, hidden_size] is the
  // residual stream.
  void embed(OpContext& context, std::span<const int32_t> tokens, float* x);
  /// Runs layer `index` < shape().layers in place; keys and values go to the caches, whose length stays.
  void layer(OpContext& context, uint64_t index, const Batch& batch, Activations activations, float* x);
  /// x := the normed stream, in place: what the head multiplies, and what embeddings are made of.
  void final_norm(OpContext& context, uint64_t n_tokens, float* x);
  void head(OpContext& context, uint64_t n_tokens, Activations activations, const float* x, float* logits);

 private:
  Decoder d_;
  ModelShape shape_;
  std::vector<float> x_, normed_, result_;
  BlockMemory memory_;
};

}  // namespace upg
