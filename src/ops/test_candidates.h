// Candidates by their definition, everything being sorted, and logits of many kinds to find them in.
#pragma once

#include <cmath>
#include <functional>
#include <random>

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

struct LogitsKind {
  const char* name;
  std::function<float(std::mt19937&, std::normal_distribution<float>&)> logit;
};
inline const LogitsKind kLogitsKinds[] = {
    {"normal", [](auto& r, auto& normal) { return 3 * normal(r); }},
    {"peaked", [](auto& r, auto& normal) { return normal(r) + (r() % 50 == 0 ? 12.0f : 0.0f); }},
    {"ties", [](auto& r, auto& normal) { return std::round(2 * normal(r)) / 2; }},
    {"equal", [](auto&, auto&) { return 1.5f; }},
    {"zeros", [](auto& r, auto&) { return r() % 2 ? 0.0f : -0.0f; }},
    {"forbidden", [](auto& r, auto& normal) { return r() % 3 ? -INFINITY : normal(r); }},
    {"huge", [](auto& r, auto& normal) { return 1e37f * normal(r); }},
    {"tiny", [](auto& r, auto& normal) { return 1e-42f * normal(r); }},
};
/// Of these no candidates can be given.
inline const LogitsKind kUnorderedKinds[] = {
    {"infinite", [](auto& r, auto& normal) { return r() % 9 == 0 ? INFINITY : normal(r); }},
    {"no number", [](auto& r, auto& normal) { return r() % 9 == 0 ? -NAN : normal(r); }},
    {"all forbidden", [](auto&, auto&) { return -INFINITY; }},
};

}  // namespace upg::testing_util
