// What a device hands over for the choice of the next token: all logits, or only the tokens that can be drawn.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace upg {

struct TokenLogit {
  int32_t token;
  float logit;
};

/// The order of tokens: equals by id. Both logits are numbers.
inline bool likelier(const TokenLogit& a, const TokenLogit& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

/// The likeliest token of logits [vocab_size], the lower id of equals.
inline int32_t likeliest_of(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

struct CandidateRequest {
  uint64_t vocab_size = 0;
  uint64_t count = 1;                // of the likeliest tokens that are wanted, those of `apart` not among them
  float temperature = 0;             // above 0: at which `total` is wanted
  std::span<const int32_t> apart{};  // tokens whose logits the caller changes, each once

  bool likeliest_alone() const { return count == 1 && temperature == 0 && apart.empty(); }
};

/// Either `logits`, or the rest.
struct Candidates {
  /// Room for all logits [vocab_size], and nothing else.
  float* make_logits(uint64_t vocab_size) {
    likeliest.clear();
    apart.clear();
    logits.resize(vocab_size);
    return logits.data();
  }

  std::vector<float> logits;  // [vocab_size] or empty
  /// Some of the tokens that are not in `apart`, in any order, each likelier than every one that is left out: about as
  /// many as were asked for, or none where the device could not choose. Their logits are finite, and not given where
  /// likeliest_alone().
  std::vector<TokenLogit> likeliest;
  std::vector<TokenLogit> apart;  // the request's, with their logits
  float top = 0;                  // the largest logit of the others
  double total = 0;               // sum of exp((logit - top) / temperature) over all of those, within total_error()
};

/// By how much two sums of n exponentials in double may differ, relative to either, whatever their order and whichever
/// of the logits they are relative to: n roundings of a sum (Higham 2002, 4.2) in each, and exponents below 745, beyond
/// which nothing is left, in which three roundings count as many times.
constexpr double total_error(uint64_t n) { return (4 * static_cast<double>(n) + 16384) * 0x1p-53; }

}  // namespace upg
