#include "text/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace upg {
namespace {

// Wanted where nothing says how many can be drawn. All but a hundredth of the probability or so, and quickly copied.
constexpr uint64_t kUsualCandidates = 2048;

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

void Sampler::list_adjusted() {
  const bool repetition = options_.repetition_penalty != 1;
  const bool generated = options_.presence_penalty != 0 || options_.frequency_penalty != 0;
  adjusted_.clear();
  for (const auto& [token, bias] : options_.logit_bias) adjusted_.push_back(token);
  if (!repetition && !generated) return;
  for (const auto& [token, count] : counts_)
    if ((repetition || count > 0) && !options_.logit_bias.contains(token)) adjusted_.push_back(token);
}

float Sampler::adjusted(int32_t token, float logit) const {
  if (const auto bias = options_.logit_bias.find(token); bias != options_.logit_bias.end()) logit += bias->second;
  const auto seen = counts_.find(token);
  if (seen == counts_.end()) return logit;
  logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
  if (seen->second > 0)
    logit -= options_.presence_penalty + options_.frequency_penalty * static_cast<float>(seen->second);
  return logit;
}

// Relative to a token of logit `top`.
double Sampler::weight(float logit, float top) const {
  return std::exp((static_cast<double>(logit) - top) / options_.temperature);
}

CandidateRequest Sampler::request() {
  list_adjusted();
  CandidateRequest request;
  request.vocab_size = vocab_size_;
  request.apart = adjusted_;
  if (takes_the_likeliest()) return request;
  if (cuts_at_top_k()) {
    request.count = options_.top_k;
  } else {
    request.count = std::min(vocab_size_, kUsualCandidates);
    request.temperature = options_.temperature;
  }
  return request;
}

// candidates_ are the likeliest of all tokens, or all. They are sorted only as far as the draw reaches, which is mostly
// a few tokens. The total of all weights is computed where it is not given. Where it is, as a range, every step is
// taken for both its ends: roundings keep their order, so that any total between them goes the same way where both do.
std::optional<int32_t> Sampler::draw(float top, const std::optional<Range>& given_total) {
  size_t kept = vocab_size_, sorted = 0;
  const auto sort_to = [&](size_t n) {  // false: so many are not there
    if (n > candidates_.size()) return false;
    if (n <= sorted) return true;
    const size_t end = std::min({kept, candidates_.size(), std::max({n, 8 * sorted, size_t{64}})});
    std::partial_sort(candidates_.begin() + static_cast<ptrdiff_t>(sorted),
                      candidates_.begin() + static_cast<ptrdiff_t>(end), candidates_.end(), likelier);
    sorted = end;
    return true;
  };
  if (cuts_at_top_k()) {
    kept = options_.top_k;
    if (!sort_to(kept)) return {};
  }
  Range sum{};
  if (given_total) {
    sum = *given_total;
  } else {
    for (size_t i = 0; i < kept; ++i) sum.low += weight(candidates_[i].logit, top);
    sum.high = sum.low;
  }
  if (options_.top_p < 1 || options_.min_p > 0) {
    const Range reached = {options_.top_p * sum.low, options_.top_p * sum.high};
    sum = {};
    for (size_t i = 0; i < kept; ++i) {
      if (!sort_to(i + 1)) return {};
      const double mine = weight(candidates_[i].logit, top);
      const bool low = i > 0 && sum.low >= reached.low, high = i > 0 && sum.low >= reached.high;
      if (mine < options_.min_p || (low && high)) {
        kept = i;
        break;
      }
      if (low != high) return {};
      sum.low += mine;
    }
    sum.high = sum.low;
  }
  const uint64_t before = state_;
  const double u = uniform();
  Range left = {u * sum.low, u * sum.high};
  for (size_t i = 0; sort_to(i + 1); ++i) {
    if (i + 1 >= kept) return candidates_[i].token;
    const double mine = weight(candidates_[i].logit, top);
    const bool low = (left.low -= mine) >= 0, high = (left.high -= mine) >= 0;
    if (low != high) break;
    if (!low) return candidates_[i].token;
  }
  state_ = before;
  return {};
}

std::optional<int32_t> Sampler::choose(const std::optional<Range>& total) {
  const TokenLogit first = *std::min_element(candidates_.begin(), candidates_.end(), likelier);
  const std::optional<int32_t> chosen = takes_the_likeliest() ? first.token : draw(first.logit, total);
  if (chosen) ++counts_[*chosen];
  return chosen;
}

int32_t Sampler::next(std::span<const float> logits) {
  list_adjusted();
  if (takes_the_likeliest() && adjusted_.empty()) {
    const int32_t chosen = likeliest_of(logits);
    ++counts_[chosen];
    return chosen;
  }
  candidates_.resize(vocab_size_);
  for (uint64_t i = 0; i < vocab_size_; ++i) candidates_[i] = {static_cast<int32_t>(i), logits[i]};
  for (int32_t token : adjusted_) {
    float& logit = candidates_[static_cast<size_t>(token)].logit;
    logit = adjusted(token, logit);
  }
  return choose({}).value();
}

std::optional<int32_t> Sampler::next(const Candidates& c) {
  if (c.likeliest.empty()) return {};
  candidates_ = c.likeliest;
  const size_t listed = candidates_.size();
  const TokenLogit last = *std::max_element(candidates_.begin(), candidates_.end(), likelier);
  for (const TokenLogit& apart : c.apart) {
    const float logit = adjusted(apart.token, apart.logit);
    if (!(logit < INFINITY)) return {};
    candidates_.push_back({apart.token, logit});
  }
  std::optional<Range> total;
  if (!takes_the_likeliest() && !cuts_at_top_k()) {
    const float top = std::min_element(candidates_.begin(), candidates_.end(), likelier)->logit;
    double sum = c.total * weight(c.top, top);
    for (size_t i = listed; i < candidates_.size(); ++i) sum += weight(candidates_[i].logit, top);
    const double error = total_error(vocab_size_) * sum;
    total = {sum - error, sum + error};
  }
  // Where these stand among the tokens that were left out is not known.
  std::erase_if(candidates_, [&](const TokenLogit& candidate) { return likelier(last, candidate); });
  return choose(total);
}

}  // namespace upg
