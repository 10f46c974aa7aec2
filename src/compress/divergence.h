// How far predictions of the next token are from a reference.
#pragma once

#include <cstdint>
#include <vector>

namespace upg {

/// Reference predictions of some tokens, softmax taken.
class Predictions {
 public:
  /// logits [n_tokens, vocab].
  Predictions(const float* logits, uint64_t n_tokens, uint64_t vocab);

  /// Sum over n_tokens from `first` on of the KL divergence, in nats, of softmax(logits), logits [n_tokens, vocab].
  double divergence(uint64_t first, const float* logits, uint64_t n_tokens) const;

 private:
  uint64_t vocab_;
  std::vector<float> probability_;        // [n_tokens, vocab]
  std::vector<double> negative_entropy_;  // [n_tokens]
};

}  // namespace upg
