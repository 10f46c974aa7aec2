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

bool Sampler::takes_the_likeliest() const {
  return (options_.temperature == 0 || options_.top_k == 1) && options_.repetition_penalty == 1 &&
         options_.presence_penalty == 0 && options_.frequency_penalty == 0 && options_.logit_bias.empty();
}

// A vocabulary is sorted only as far as the draw reaches, which is mostly a few tokens.
template <typename Likelier>
int32_t Sampler::draw(Likelier likelier) {
  size_t kept = candidates_.size(), sorted = 0;
  const auto sort_to = [&](size_t n) {
    if (n <= sorted) return;
    const size_t end = std::min(kept, std::max({n, 8 * sorted, size_t{64}}));
    std::partial_sort(candidates_.begin() + static_cast<ptrdiff_t>(sorted),
                      candidates_.begin() + static_cast<ptrdiff_t>(end), candidates_.end(), likelier);
    sorted = end;
  };
  const float top = std::min_element(candidates_.begin(), candidates_.end(), likelier)->logit;
  // Relative to the likeliest token's.
  const auto weight = [&](size_t i) {
    return std::exp((static_cast<double>(candidates_[i].logit) - top) / options_.temperature);
  };
  if (options_.top_k != 0 && options_.top_k < kept) {
    kept = options_.top_k;
    sort_to(kept);
  }
  double total = 0;
  for (size_t i = 0; i < kept; ++i) total += weight(i);
  double sum = total;
  if (options_.top_p < 1 || options_.min_p > 0) {
    sum = 0;
    for (size_t i = 0; i < kept; ++i) {
      sort_to(i + 1);
      const double mine = weight(i);
      if (mine < options_.min_p || (i > 0 && sum >= options_.top_p * total)) {
        kept = i;
        break;
      }
      sum += mine;
    }
  }
  double left = uniform() * sum;
  size_t i = 0;
  for (sort_to(1); i + 1 < kept && (left -= weight(i)) >= 0; sort_to(++i + 1)) {
  }
  return candidates_[i].token;
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
  const int32_t chosen = options_.temperature == 0 || options_.top_k == 1
                             ? std::min_element(candidates_.begin(), candidates_.end(), likelier)->token
                             : draw(likelier);
  ++counts_[chosen];
  return chosen;
}

}  // namespace upg
