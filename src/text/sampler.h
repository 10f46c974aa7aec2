// From logits to the next token. The same logits, history and seed give the same token on every machine.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "upg/engine.h"

namespace upg {

class Sampler {
 public:
  /// Throws Error(kInvalidArgument) naming the option that is out of range.
  Sampler(const SamplingOptions& options, uint64_t vocab_size);

  /// A token of the prompt: counts for the repetition penalty only.
  void saw(int32_t token);

  /// Whether next() is the likeliest token whatever came before, so that nobody needs the logits.
  bool takes_the_likeliest() const;

  /// Chooses the next token and remembers it. logits [vocab_size]; ties go to the lower id.
  int32_t next(std::span<const float> logits);

 private:
  struct Candidate {
    int32_t token;
    float logit;
  };
  double uniform();  // [0, 1)
  template <typename Likelier>
  int32_t draw(Likelier likelier);

  SamplingOptions options_;
  uint64_t vocab_size_;
  uint64_t state_;                                // splitmix64
  std::unordered_map<int32_t, uint32_t> counts_;  // times generated; 0 for tokens seen in the prompt only
  std::vector<Candidate> candidates_;
};

}  // namespace upg
