// The search inside the trellis encoder: best codes for one tile of targets. Used with and without error feedback.
#pragma once

#include <cstdint>

#include "codec/layout/trellis.h"

namespace upg {

inline constexpr unsigned kLanes = kTrellisPanelRows;
inline constexpr unsigned kBlock = kTrellisBlockCols;

/// Table and scale ladder in float: a weight is scale[lane] * step[i] * level[s][h].
struct TrellisTables {
  unsigned bits = 3;
  float level[2][16] = {};  // T / 127
  float step[16] = {};      // steps / 255, ascending
};

/// One tile, lane-minor so that the compiler runs 16 rows side by side. All in chain order.
struct TrellisTile {
  float target[kBlock][kLanes];    // what to come close to: the original and what earlier columns' errors ask for
  float original[kBlock][kLanes];  // the weights themselves; read with feedback only
  float weight[kBlock][kLanes];    // importance; 0: what is missed here is made good elsewhere
  float scale[kLanes];             // row scale; 0 encodes to step 0 and arbitrary codes
  /// Error feedback inside the block, or nullptr: an error original - decoded of 1 at position i raises the target of
  /// position k > i by feedback[k][i].
  const float (*feedback)[kBlock] = nullptr;
  // results
  uint8_t code[kBlock][kLanes];
  uint8_t step[kLanes];
  float decoded[kBlock][kLanes];
  float error[kLanes];  // sum over the block of weight * (target, with feedback - decoded)^2
};

/// Fills the results: for each lane the step and codes of least error, by Viterbi over the eight states, once for each
/// tail-biting start (Marcellin & Fischer 1990, trellis coded quantization; tail-biting as in Tseng et al. 2024, QTIP),
/// for the two steps of the ladder that do best without the condition at the ends. With feedback each survivor carries
/// the targets that its own errors make (per-survivor processing, Raheli et al. 1995); the path found is then good but
/// need not be the best.
void search_trellis_tile(const TrellisTables& tables, TrellisTile& tile);

}  // namespace upg
