#include "codec/trellis_search.h"

#include <cmath>
#include <cstring>

#include "base/clones.h"

namespace upg {
namespace {

// Sixteen rows side by side, as the compiler's own vectors: plain loops over lanes came out five times slower.
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));

constexpr unsigned kStates = kTrellisStates;
constexpr int kCandidates = 6;  // ladder steps tried around the block's rms
constexpr int kFinalists = 2;   // of them searched with the condition that the chain bites its tail
constexpr float kInfinity = 1e30f;

[[gnu::always_inline]] inline void load(const float* from, Floats& to) { std::memcpy(&to, from, sizeof to); }

// For each lane, the code of each parity nearest to x in row s of the table; difference = x - its level.
struct Branches {
  Floats difference[2];
  Ints code[2];
};

[[gnu::always_inline]] inline void nearest(const TrellisTables& tables, unsigned s, const Floats& x,
                                           const Floats& scale, Branches& out) {
  const unsigned levels = 1u << tables.bits;
  for (unsigned parity = 0; parity < 2; ++parity) {
    Floats best = x - scale * tables.level[s][parity];
    Floats size = best * best;
    Ints code = Ints{} + static_cast<int32_t>(parity);
    for (unsigned h = parity + 2; h < levels; h += 2) {
      const Floats d = x - scale * tables.level[s][h];
      const Floats e = d * d;
      const Ints closer = e < size;
      code = closer ? Ints{} + static_cast<int32_t>(h) : code;
      best = closer ? d : best;
      size = closer ? e : size;
    }
    out.difference[parity] = best;
    out.code[parity] = code;
  }
}

// What the search decides at one position, by the state after it: the code (low bits) and whether the state before had
// its oldest bit set (kOld).
constexpr int32_t kOld = 0x100;
using Decision = Ints[kStates];

// Extends the survivors in `cost` by one position. branches(state): those of that state's survivor. Writes the
// decision, which survivors came from the old state (all bits set), and what the new ones differ from their targets by.
template <typename BranchesOf>
[[gnu::always_inline]] inline void extend(BranchesOf&& branches, const float* weights, Floats cost[kStates],
                                          Decision& decision, Ints from_old[kStates], Floats difference[kStates]) {
  Floats weight;
  load(weights, weight);
  Floats before[kStates];
  for (unsigned s = 0; s < kStates; ++s) before[s] = cost[s];
  for (unsigned t = 0; t < kStates; ++t) {
    const unsigned young = t >> 1;  // the two states that lead here differ in their oldest bit
    const unsigned old = young | (kStates >> 1);
    const Branches& b0 = branches(young);
    const Branches& b1 = branches(old);
    const unsigned parity0 = (t & 1) ^ trellis_flip(young);
    const unsigned parity1 = (t & 1) ^ trellis_flip(old);
    const Floats d0 = b0.difference[parity0];
    const Floats d1 = b1.difference[parity1];
    const Floats c0 = before[young] + weight * (d0 * d0);
    const Floats c1 = before[old] + weight * (d1 * d1);
    const Ints one = c1 < c0;
    from_old[t] = one;
    decision[t] = one ? (b1.code[parity1] ^ static_cast<int32_t>(trellis_flip(old))) | kOld
                      : b0.code[parity0] ^ static_cast<int32_t>(trellis_flip(young));
    difference[t] = one ? d1 : d0;
    cost[t] = one ? c1 : c0;
  }
}

struct Result {
  Floats best;
  Ints step;
  Ints code[kBlock];
};

// Where the path that began and ends in `start` beats the best, it becomes the result.
[[gnu::always_inline]] inline void keep_better(const Decision* decisions, unsigned start, const Floats& cost,
                                               const Ints& step, Result& result) {
  const Ints wins = cost < result.best;
  result.best = wins ? cost : result.best;
  result.step = wins ? step : result.step;
  int32_t state[kLanes];
  int32_t any = 0;
  for (unsigned j = 0; j < kLanes; ++j) {
    state[j] = static_cast<int32_t>(start);
    any |= wins[j];
  }
  if (!any) return;
  for (unsigned i = kBlock; i-- > 0;) {
    Ints taken;
    for (unsigned j = 0; j < kLanes; ++j) {
      taken[j] = decisions[i][state[j]][j];
      state[j] = (state[j] >> 1) | (taken[j] & kOld ? static_cast<int32_t>(kStates >> 1) : 0);
    }
    result.code[i] = wins ? taken & (kOld - 1) : result.code[i];
  }
}

[[gnu::always_inline]] inline void start_in(unsigned start, Floats cost[kStates]) {
  for (unsigned s = 0; s < kStates; ++s) cost[s] = Floats{} + (s == start ? 0.0f : kInfinity);
}

// Branches of the whole block at one scale per lane, targets as they are.
[[gnu::always_inline]] inline void all_branches(const TrellisTables& tables, const TrellisTile& tile,
                                                const Floats& scale, Branches out[kBlock][2]) {
  for (unsigned i = 0; i < kBlock; ++i) {
    Floats x;
    load(tile.target[i], x);
    for (unsigned s = 0; s < 2; ++s) nearest(tables, s, x, scale, out[i][s]);
  }
}

// Least error of any path, wherever it begins and ends.
[[gnu::always_inline]] inline void least_error(const TrellisTile& tile, const Branches branches[kBlock][2],
                                               Floats& least) {
  Floats cost[kStates] = {};
  Floats difference[kStates];
  Ints from_old[kStates];
  Decision decision;
  for (unsigned i = 0; i < kBlock; ++i)
    extend([&](unsigned s) -> const Branches& { return branches[i][trellis_row(s)]; }, tile.weight[i], cost, decision,
           from_old, difference);
  least = cost[0];
  for (unsigned s = 1; s < kStates; ++s) least = cost[s] < least ? cost[s] : least;
}

[[gnu::always_inline]] inline void search(const TrellisTile& tile, const Branches branches[kBlock][2], const Ints& step,
                                          Result& result) {
  for (unsigned start = 0; start < kStates; ++start) {
    Decision decisions[kBlock];
    Floats cost[kStates];
    Floats difference[kStates];
    Ints from_old[kStates];
    start_in(start, cost);
    for (unsigned i = 0; i < kBlock; ++i)
      extend([&](unsigned s) -> const Branches& { return branches[i][trellis_row(s)]; }, tile.weight[i], cost,
             decisions[i], from_old, difference);
    keep_better(decisions, start, cost[start], step, result);
  }
}

// The same where errors feed the targets of the positions after them.
[[gnu::always_inline]] inline void search_with_feedback(const TrellisTables& tables, const TrellisTile& tile,
                                                        const Floats& scale, const Ints& step, Result& result) {
  for (unsigned start = 0; start < kStates; ++start) {
    Decision decisions[kBlock];
    Floats cost[kStates];
    Floats target[kBlock][kStates];  // of each survivor
    for (unsigned i = 0; i < kBlock; ++i)
      for (unsigned s = 0; s < kStates; ++s) load(tile.target[i], target[i][s]);
    start_in(start, cost);
    for (unsigned i = 0; i < kBlock; ++i) {
      Branches b[kStates];
      for (unsigned s = 0; s < kStates; ++s) nearest(tables, trellis_row(s), target[i][s], scale, b[s]);
      Floats difference[kStates];
      Ints from_old[kStates];
      extend([&](unsigned s) -> const Branches& { return b[s]; }, tile.weight[i], cost, decisions[i], from_old,
             difference);
      Floats original;
      load(tile.original[i], original);
      Floats error[kStates];  // original - decoded = original - (target of that survivor - difference)
      Floats weight;
      load(tile.weight[i], weight);
      for (unsigned t = 0; t < kStates; ++t) {
        const Floats missed = weight != 0.0f ? difference[t] : Floats{};  // without weight: made good elsewhere
        error[t] = original - ((from_old[t] ? target[i][(t >> 1) | (kStates >> 1)] : target[i][t >> 1]) - missed);
      }
      for (unsigned k = i + 1; k < kBlock; ++k) {
        const float f = tile.feedback[k][i];
        Floats before[kStates];
        for (unsigned s = 0; s < kStates; ++s) before[s] = target[k][s];
        for (unsigned t = 0; t < kStates; ++t)
          target[k][t] = (from_old[t] ? before[(t >> 1) | (kStates >> 1)] : before[t >> 1]) + f * error[t];
      }
    }
    keep_better(decisions, start, cost[start], step, result);
  }
}

// The ladder step that would give the table's rms the block's.
[[gnu::always_inline]] inline void central_steps(const TrellisTables& tables, const TrellisTile& tile, int* central) {
  float table_power = 0;
  const unsigned levels = 1u << tables.bits;
  for (unsigned h = 0; h < levels; ++h) table_power += tables.level[0][h] * tables.level[0][h];
  // Uniform use of the levels overstates the rms of a trained table on bell-shaped weights by about 1.3.
  const float table_rms = std::sqrt(table_power / static_cast<float>(levels)) / 1.3f;
  float power[kLanes] = {};
  for (unsigned i = 0; i < kBlock; ++i)
    for (unsigned j = 0; j < kLanes; ++j) power[j] += tile.target[i][j] * tile.target[i][j];
  for (unsigned j = 0; j < kLanes; ++j) {
    const float rms = std::sqrt(power[j] / static_cast<float>(kBlock));
    const float wanted = tile.scale[j] > 0 ? rms / (tile.scale[j] * table_rms) : 0;
    int n = 0;
    while (n < 15 && tables.step[n] * tables.step[n + 1] < wanted * wanted) ++n;
    central[j] = n;
  }
}

}  // namespace

UPG_CLONES
void search_trellis_tile(const TrellisTables& tables, TrellisTile& tile) {
  const Floats worst = Floats{} + kInfinity * 1e6f;
  Result result{worst, {}, {}};
  Floats finalist_error[kFinalists] = {worst, worst};
  Ints finalist[kFinalists] = {};
  int central[kLanes];
  central_steps(tables, tile, central);
  Floats scale;
  Branches branches[kBlock][2];
  for (int c = 0; c < kCandidates; ++c) {
    Ints step;
    for (unsigned j = 0; j < kLanes; ++j) {
      int n = central[j] + c - kCandidates / 2;
      n = n < 0 ? 0 : n > 15 ? 15 : n;
      step[j] = n;
      scale[j] = tile.scale[j] * tables.step[n];
    }
    Floats least;
    all_branches(tables, tile, scale, branches);
    least_error(tile, branches, least);
    const Ints first = least < finalist_error[0];
    const Ints second = least < finalist_error[1];
    finalist[1] = first ? finalist[0] : second ? step : finalist[1];
    finalist_error[1] = first ? finalist_error[0] : second ? least : finalist_error[1];
    finalist[0] = first ? step : finalist[0];
    finalist_error[0] = first ? least : finalist_error[0];
  }
  for (const Ints& step : finalist) {
    for (unsigned j = 0; j < kLanes; ++j) scale[j] = tile.scale[j] * tables.step[step[j]];
    if (tile.feedback != nullptr) {
      search_with_feedback(tables, tile, scale, step, result);
    } else {
      all_branches(tables, tile, scale, branches);
      search(tile, branches, step, result);
    }
  }
  unsigned state[kLanes];
  for (unsigned j = 0; j < kLanes; ++j) {
    tile.step[j] = static_cast<uint8_t>(result.step[j]);
    tile.error[j] = result.best[j];
    scale[j] = tile.scale[j] * tables.step[result.step[j]];
    state[j] = 0;
    for (unsigned i = kBlock - 3; i < kBlock; ++i)
      state[j] = trellis_next_state(state[j], static_cast<unsigned>(result.code[i][j]));
  }
  for (unsigned i = 0; i < kBlock; ++i) {
    for (unsigned j = 0; j < kLanes; ++j) {
      const auto code = static_cast<unsigned>(result.code[i][j]);
      tile.code[i][j] = static_cast<uint8_t>(code);
      tile.decoded[i][j] = scale[j] * tables.level[trellis_row(state[j])][code ^ trellis_flip(state[j])];
      state[j] = trellis_next_state(state[j], code);
    }
  }
}

}  // namespace upg
