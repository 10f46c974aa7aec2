#include "text/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace upg {
namespace {

void check(bool in_range, const char* name, double value, const char* range) {
  if (!in_range) fail(ErrorCode::kInvalidArgument, "{} is {}, must be {}", name, value, range);
}

}  // namespace

Sampler::Sampler(const SamplingOptions& options, uint64_t vocab_size)
    : options_(options), vocab_size_(vocab_size), state_(options.seed) {
  check(options.temperature >= 0 && std::isfinite(options.temperature), "temperature", options.temperature,
        "0 or more");
  check(options.top_p > 0 && options.top_p <= 1, "top_p", options.top_p, "above 0 and at most 1");
  check(options.min_p >= 0 && options.min_p <= 1, "min_p", options.min_p, "from 0 to 1");
  check(options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty), "repetition_penalty",
        options.repetition_penalty, "above 0");
  check(std::isfinite(options.presence_penalty), "presence_penalty", options.presence_penalty, "finite");
  check(std::isfinite(options.frequency_penalty), "frequency_penalty", options.frequency_penalty, "finite");
  for (const auto& [token, bias] : options.logit_bias) {
    check(token >= 0 && static_cast<uint64_t>(token) < vocab_size, "logit_bias token", token,
          "an id of the vocabulary");
    check(!std::isnan(bias), "logit_bias", bias, "a number");
  }
}

void Sampler::saw(int32_t token) { counts_.try_emplace(token, 0); }

double Sampler::uniform() {  // splitmix64 (Steele, Lea & Flood 2014)
  uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

int32_t Sampler::next(std::span<const float> logits) {
  candidates_.resize(vocab_size_);
  for (uint64_t i = 0; i < vocab_size_; ++i) candidates_[i] = {static_cast<int32_t>(i), logits[i]};
  for (const auto& [token, bias] : options_.logit_bias) candidates_[static_cast<size_t>(token)].logit += bias;
  for (const auto& [token, count] : counts_) {
    float& logit = candidates_[static_cast<size_t>(token)].logit;
    logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    if (count > 0) logit -= options_.presence_penalty + options_.frequency_penalty * static_cast<float>(count);
  }

  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  };
  int32_t chosen;
  if (options_.temperature == 0 || options_.top_k == 1) {
    chosen = std::min_element(candidates_.begin(), candidates_.end(), likelier)->token;
  } else {
    size_t kept = options_.top_k == 0 ? candidates_.size() : std::min<size_t>(options_.top_k, candidates_.size());
    std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(kept), candidates_.end(),
                      likelier);
    // Probabilities relative to the likeliest token, which is first.
    std::vector<double> weight(kept);
    double total = 0;
    for (size_t i = 0; i < kept; ++i)
      total += weight[i] =
          std::exp((static_cast<double>(candidates_[i].logit) - candidates_[0].logit) / options_.temperature);
    double sum = 0;
    for (size_t i = 0; i < kept; ++i) {
      if (weight[i] < options_.min_p || (i > 0 && sum >= options_.top_p * total)) {
        kept = i;
        break;
      }
      sum += weight[i];
    }
    double left = uniform() * sum;
    size_t i = 0;
    while (i + 1 < kept && (left -= weight[i]) >= 0) ++i;
    chosen = candidates_[i].token;
  }
  ++counts_[chosen];
  return chosen;
}

}  // namespace upg
