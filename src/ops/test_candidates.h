// Candidates by their definition: everything is sorted.
#pragma once

#include <cmath>

#include "ops/candidates.h"

namespace upg::testing_util {

inline Candidates reference_candidates(std::span<const float> logits, const CandidateRequest& request) {
  Candidates c;
  std::vector<bool> apart(logits.size());
  for (int32_t token : request.apart) {
    apart[static_cast<size_t>(token)] = true;
    c.apart.push_back({token, logits[static_cast<size_t>(token)]});
  }
  std::vector<TokenLogit> rest;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (apart[i]) continue;
    if (!(logits[i] < INFINITY)) return c;
    if (logits[i] > -INFINITY) rest.push_back({static_cast<int32_t>(i), logits[i]});
  }
  if (rest.empty()) return c;
  std::sort(rest.begin(), rest.end(), likelier);
  c.top = rest[0].logit;
  if (request.temperature > 0) {
    long double total = 0;
    for (const TokenLogit& t : rest)
      total += std::exp((static_cast<long double>(t.logit) - c.top) / request.temperature);
    c.total = static_cast<double>(total);
  }
  rest.resize(std::min<size_t>(rest.size(), request.count));
  c.likeliest = std::move(rest);
  return c;
}

}  // namespace upg::testing_util
