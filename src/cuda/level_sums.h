// Levels of a table as sums of lookups.
#pragma once

#include "cuda/program.h"

namespace upg::cuda {

/// Sets what follows from w's `table` and `bits`: extra, differences and sums, as Sums3 and Sums4 (trellis.cuh) want
/// them.
void set_sums(TrellisMatrix* w);

}  // namespace upg::cuda
