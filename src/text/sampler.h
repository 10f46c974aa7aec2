// From logits to the next token. The same logits, history and seed give the same token on every machine.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "ops/candidates.h"
#include "upg/engine.h"

namespace upg {

class Sampler {
 public:
  /// Throws Error(kInvalidArgument) naming the option that is out of range.
  Sampler(const SamplingOptions& options, uint64_t vocab_size);

  /// A token of the prompt: counts for the repetition penalty only.
  void saw(int32_t token);

  /// What the next choice needs to know. Valid until the next call.
  CandidateRequest request();

  /// Chooses the next token and remembers it. logits [vocab_size]; ties go to the lower id.
  int32_t next(std::span<const float> logits);

  /// The same from what a device answered to request(): the token that all logits would have given. nullopt, and
  /// nothing has happened, where that cannot be said without them.
  std::optional<int32_t> next(const Candidates& candidates);

 private:
  struct Range {
    double low, high;
  };
  double uniform();  // [0, 1)
  bool takes_the_likeliest() const { return options_.temperature == 0 || options_.top_k == 1; }
  bool cuts_at_top_k() const { return options_.top_k != 0 && options_.top_k < vocab_size_; }
  void list_adjusted();
  float adjusted(int32_t token, float logit) const;
  double weight(float logit, float top) const;
  std::optional<int32_t> choose(const std::optional<Range>& total);
  std::optional<int32_t> draw(float top, const std::optional<Range>& total);

  SamplingOptions options_;
  uint64_t vocab_size_;
  uint64_t state_;                                // splitmix64
  std::unordered_map<int32_t, uint32_t> counts_;  // times generated; 0 for tokens seen in the prompt only
  std::vector<int32_t> adjusted_;                 // tokens whose logits are not the model's
  std::vector<TokenLogit> candidates_;            // the likeliest, or all
};

}  // namespace upg
