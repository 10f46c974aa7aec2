#include "compress/divergence.h"

#include <algorithm>
#include <cmath>

namespace upg {
namespace {

double log_sum_exp(const float* logits, uint64_t n) {
  const float top = *std::max_element(logits, logits + n);
  double sum = 0;
  for (uint64_t i = 0; i < n; ++i) sum += std::exp(logits[i] - top);
  return top + std::log(sum);
}

}  // namespace

Predictions::Predictions(const float* logits, uint64_t n_tokens, uint64_t vocab)
    : vocab_(vocab), probability_(n_tokens * vocab), negative_entropy_(n_tokens) {
  for (uint64_t t = 0; t < n_tokens; ++t) {
    const double z = log_sum_exp(logits + t * vocab, vocab);
    for (uint64_t i = 0; i < vocab; ++i) {
      const double log_p = logits[t * vocab + i] - z;
      const float p = std::exp(static_cast<float>(log_p));
      probability_[t * vocab + i] = p;
      negative_entropy_[t] += p * log_p;
    }
  }
}

// sum p (log p - log q) = sum p log p - sum p logit + log sum exp(logits).
double Predictions::divergence(uint64_t first, const float* logits, uint64_t n_tokens) const {
  double sum = 0;
  for (uint64_t t = 0; t < n_tokens; ++t) {
    const float* p = probability_.data() + (first + t) * vocab_;
    const float* q = logits + t * vocab_;
    const double z = log_sum_exp(q, vocab_);
    double cross = 0;  // p sums to 1 within rounding: logits are taken from z, so that the rest cancels
    for (uint64_t i = 0; i < vocab_; ++i) cross += p[i] * (q[i] - z);
    sum += negative_entropy_[first + t] - cross;
  }
  return sum;
}

}  // namespace upg
