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

/// One tile, lane-minor so that the compiler runs 16 rows side by side.
struct TrellisTile {
  float target[kBlock][kLanes];  // in chain order
  float weight[kBlock];          // importance of each column, in chain order
  float scale[kLanes];           // row scale; 0 encodes to step 0 and arbitrary codes
  // results
  uint8_t code[kBlock][kLanes];  // chain order
  uint8_t step[kLanes];
  float decoded[kBlock][kLanes];
  float error[kLanes];  // sum over the block of weight * (target - decoded)^2
};

/// Fills the results: for each lane the step (all of the ladder near the block's rms are tried) and codes of least
/// error, by Viterbi over the two states, once for each tail-biting start (Marcellin & Fischer 1990, trellis coded
/// quantization; tail-biting as in Tseng et al. 2024, QTIP).
void search_trellis_tile(const TrellisTables& tables, TrellisTile& tile);

}  // namespace upg
