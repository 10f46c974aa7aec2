// A loaded model: tokens in, logits out. Architectures implement it, one file each under arch/; arch_table.h lists
// them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/kv_cache.h"
#include "ops/linear.h"

namespace upg {

/// What callers need to know of any architecture.
struct ModelShape {
  uint64_t vocab_size = 0;
  uint64_t hidden_size = 0;
  uint64_t max_context = 0;  // positions the model was made for
  KvShape kv{};
};

/// Which positions of a forward pass yield logits.
struct LogitsRange {
  uint64_t begin = 0;  // index into the tokens of the pass
  uint64_t end = 0;
};

class Model {
 public:
  virtual ~Model() = default;

  const ModelShape& shape() const { return shape_; }

  /// Runs `tokens` (valid ids, at least one) at positions cache.length() and on, appending to the cache, which has
  /// room. logits [range.end - range.begin, vocab_size] receives those of the positions in `range`; may be empty. The
  /// same tokens give the same logits whatever the number of threads.
  virtual void forward(OpContext& context, std::span<const int32_t> tokens, Activations activations, KvCache& cache,
                       LogitsRange range, float* logits) = 0;

 protected:
  ModelShape shape_;
};

}  // namespace upg
