#include "compress/allocate.h"

#include <algorithm>

namespace upg {
namespace {

constexpr size_t kMaxPairs = 512;  // matrices up to which exchanges between two are tried
constexpr int kMaxExchanges = 1000;

// A step up the lower convex hull of a matrix's choices.
struct Step {
  size_t matrix;
  size_t to;
  uint64_t bytes;
  double gain;
};

// gain per byte of a is more than of b; without division, and ties by cost, then order.
bool better(const Step& a, const Step& b) {
  const double x = a.gain * static_cast<double>(b.bytes);
  const double y = b.gain * static_cast<double>(a.bytes);
  if (x != y) return x > y;
  if (a.bytes != b.bytes) return a.bytes < b.bytes;
  if (a.matrix != b.matrix) return a.matrix < b.matrix;
  return a.to < b.to;
}

void add_hull(const std::vector<Choice>& choices, size_t matrix, std::vector<Step>& steps) {
  for (size_t at = 0; at + 1 < choices.size();) {
    Step best{matrix, 0, 0, 0};
    for (size_t to = at + 1; to < choices.size(); ++to) {
      const Step step{matrix, to, choices[to].bytes - choices[at].bytes, choices[at].loss - choices[to].loss};
      if (step.gain > 0 && (best.to == 0 || better(step, best))) best = step;
    }
    if (best.to == 0) return;
    steps.push_back(best);
    at = best.to;
  }
}

}  // namespace

std::optional<std::vector<size_t>> allocate(std::span<const std::vector<Choice>> matrices, uint64_t budget,
                                            uint64_t* fewest) {
  *fewest = 0;
  for (const auto& choices : matrices) *fewest += choices[0].bytes;
  if (*fewest > budget) return std::nullopt;
  uint64_t left = budget - *fewest;
  std::vector<size_t> chosen(matrices.size(), 0);

  // Up the hulls, steepest first; a matrix whose step does not fit stays where it is.
  std::vector<Step> steps;
  for (size_t i = 0; i < matrices.size(); ++i) add_hull(matrices[i], i, steps);
  std::stable_sort(steps.begin(), steps.end(), better);
  std::vector<bool> stuck(matrices.size());
  for (const Step& step : steps) {
    if (stuck[step.matrix]) continue;
    if (step.bytes > left) {
      stuck[step.matrix] = true;
      continue;
    }
    left -= step.bytes;
    chosen[step.matrix] = step.to;
  }

  // What is left: one matrix up, if need be paid for by another's going down.
  for (int round = 0; round < kMaxExchanges; ++round) {
    double best_gain = 0;
    size_t up = 0, up_to = 0, down = 0, down_to = 0;
    bool paid = false;
    for (size_t i = 0; i < matrices.size(); ++i) {
      const auto& mine = matrices[i];
      for (size_t to = chosen[i] + 1; to < mine.size(); ++to) {
        const uint64_t cost = mine[to].bytes - mine[chosen[i]].bytes;
        const double gain = mine[chosen[i]].loss - mine[to].loss;
        if (cost <= left) {
          if (gain > best_gain) best_gain = gain, up = i, up_to = to, paid = false;
        } else if (matrices.size() <= kMaxPairs && gain > best_gain) {
          for (size_t j = 0; j < matrices.size(); ++j) {
            for (size_t lower = 0; j != i && lower < chosen[j]; ++lower) {
              const Choice& from = matrices[j][chosen[j]];
              const double net = gain - (matrices[j][lower].loss - from.loss);
              if (cost <= left + (from.bytes - matrices[j][lower].bytes) && net > best_gain)
                best_gain = net, up = i, up_to = to, down = j, down_to = lower, paid = true;
            }
          }
        }
      }
    }
    if (!(best_gain > 0)) break;
    if (paid) {
      left += matrices[down][chosen[down]].bytes - matrices[down][down_to].bytes;
      chosen[down] = down_to;
    }
    left -= matrices[up][up_to].bytes - matrices[up][chosen[up]].bytes;
    chosen[up] = up_to;
  }
  return chosen;
}

}  // namespace upg
