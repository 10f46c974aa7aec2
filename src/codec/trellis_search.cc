// Compiled several times for several instruction sets by target_clones; contraction is off in this file (see
// cmake/layers.cmake) so that every clone gives the same bits.
#include "codec/trellis_search.h"

#include <cmath>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__SANITIZE_ADDRESS__)
#define UPG_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define UPG_CLONES
#endif

namespace upg {
namespace {

constexpr int kCandidates = 6;  // ladder steps tried around the block's rms
constexpr float kInfinity = 1e30f;

struct Branches {  // for each lane, state and parity of the code: least error and the code that gives it
  float error[2][2][kLanes];
  uint32_t code[2][2][kLanes];
};

[[gnu::always_inline]] inline void nearest(const TrellisTables& tables, const float* x, const float* scale,
                                           float weight, Branches& out) {
  const unsigned levels = 1u << tables.bits;
  for (unsigned s = 0; s < 2; ++s) {
    for (unsigned parity = 0; parity < 2; ++parity) {
      float best[kLanes];
      uint32_t code[kLanes];
      for (unsigned j = 0; j < kLanes; ++j) {
        best[j] = kInfinity;
        code[j] = parity;
      }
      for (unsigned h = parity; h < levels; h += 2) {
        const float level = tables.level[s][h];
        for (unsigned j = 0; j < kLanes; ++j) {
          const float d = x[j] - scale[j] * level;
          const float e = d * d;
          code[j] = e < best[j] ? h : code[j];
          best[j] = e < best[j] ? e : best[j];
        }
      }
      for (unsigned j = 0; j < kLanes; ++j) {
        out.error[s][parity][j] = best[j] * weight;
        out.code[s][parity][j] = code[j];
      }
    }
  }
}

// The whole block at one scale per lane. Keeps, for both starts, the survivors; returns the cheaper in tile's results
// where it beats `best`.
[[gnu::always_inline]] inline void viterbi(const TrellisTables& tables, TrellisTile& tile, const float* scale,
                                           const uint8_t* step, float* best) {
  Branches branches[kBlock];
  for (unsigned i = 0; i < kBlock; ++i) nearest(tables, tile.target[i], scale, tile.weight[i], branches[i]);
  for (unsigned start = 0; start < 2; ++start) {
    float cost[2][kLanes];
    uint32_t from[kBlock][2][kLanes];  // state before position i, on the best path that leaves it in state t
    for (unsigned j = 0; j < kLanes; ++j) {
      cost[start][j] = 0;
      cost[1 - start][j] = kInfinity;
    }
    for (unsigned i = 0; i < kBlock; ++i) {
      const Branches& b = branches[i];
      for (unsigned j = 0; j < kLanes; ++j) {
        const float even0 = cost[0][j] + b.error[0][0][j];
        const float even1 = cost[1][j] + b.error[1][0][j];
        const float odd0 = cost[0][j] + b.error[0][1][j];
        const float odd1 = cost[1][j] + b.error[1][1][j];
        from[i][0][j] = even1 < even0;
        from[i][1][j] = odd1 < odd0;
        cost[0][j] = even1 < even0 ? even1 : even0;
        cost[1][j] = odd1 < odd0 ? odd1 : odd0;
      }
    }
    uint32_t wins[kLanes];
    uint32_t state[kLanes];
    uint32_t any = 0;
    for (unsigned j = 0; j < kLanes; ++j) {
      wins[j] = cost[start][j] < best[j];
      best[j] = wins[j] ? cost[start][j] : best[j];
      state[j] = start;
      any |= wins[j];
    }
    if (!any) continue;
    for (unsigned j = 0; j < kLanes; ++j) tile.step[j] = wins[j] ? step[j] : tile.step[j];
    for (unsigned i = kBlock; i-- > 0;) {
      const Branches& b = branches[i];
      for (unsigned j = 0; j < kLanes; ++j) {
        const uint32_t previous = state[j] ? from[i][1][j] : from[i][0][j];
        const uint32_t even = previous ? b.code[1][0][j] : b.code[0][0][j];
        const uint32_t odd = previous ? b.code[1][1][j] : b.code[0][1][j];
        const uint32_t code = state[j] ? odd : even;
        tile.code[i][j] = static_cast<uint8_t>(wins[j] ? code : tile.code[i][j]);
        state[j] = previous;
      }
    }
  }
}

}  // namespace

UPG_CLONES
void search_trellis_tile(const TrellisTables& tables, TrellisTile& tile) {
  float best[kLanes];
  float wanted[kLanes];  // the step that would give the table's rms the block's
  float table_power = 0;
  const unsigned levels = 1u << tables.bits;
  for (unsigned h = 0; h < levels; ++h) table_power += tables.level[0][h] * tables.level[0][h];
  // Uniform use of the levels overstates the rms of a trained table on bell-shaped weights by about 1.3.
  const float table_rms = std::sqrt(table_power / static_cast<float>(levels)) / 1.3f;
  for (unsigned j = 0; j < kLanes; ++j) {
    float power = 0;
    for (unsigned i = 0; i < kBlock; ++i) power += tile.target[i][j] * tile.target[i][j];
    const float rms = std::sqrt(power / static_cast<float>(kBlock));
    wanted[j] = tile.scale[j] > 0 ? rms / (tile.scale[j] * table_rms) : 0;
    best[j] = kInfinity * 1e6f;
    tile.step[j] = 0;
  }
  std::memset(tile.code, 0, sizeof tile.code);
  int nearest_step[kLanes];
  for (unsigned j = 0; j < kLanes; ++j) {
    int n = 0;
    while (n < 15 && std::sqrt(tables.step[n] * tables.step[n + 1]) < wanted[j]) ++n;
    nearest_step[j] = n;
  }
  for (int c = 0; c < kCandidates; ++c) {
    float scale[kLanes];
    uint8_t step[kLanes];
    for (unsigned j = 0; j < kLanes; ++j) {
      int n = nearest_step[j] + c - kCandidates / 2;
      n = n < 0 ? 0 : n > 15 ? 15 : n;
      step[j] = static_cast<uint8_t>(n);
      scale[j] = tile.scale[j] * tables.step[n];
    }
    viterbi(tables, tile, scale, step, best);
  }
  for (unsigned j = 0; j < kLanes; ++j) {
    const float scale = tile.scale[j] * tables.step[tile.step[j]];
    unsigned previous = tile.code[kBlock - 1][j];
    tile.error[j] = 0;
    for (unsigned i = 0; i < kBlock; ++i) {
      const unsigned code = tile.code[i][j];
      tile.decoded[i][j] = scale * tables.level[previous & 1][code];
      const float d = tile.target[i][j] - tile.decoded[i][j];
      tile.error[j] += tile.weight[i] * d * d;
      previous = code;
    }
  }
}

}  // namespace upg
