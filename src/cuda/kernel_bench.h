// How fast kernels of the cuda device are alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "upg/progress.h"

namespace upg::cuda {

struct KernelTime {
  std::string name;
  uint64_t vectors = 1;  // multiplied at once
  double seconds = 0;    // median of the rounds
  double weights = 0;    // of the matrix, zeros included
  double bytes = 0;      // stored
};

/// The trellis products of one and of several tokens, and the sparse kernels at 1 to 50% density, on 17,920 x 5,120
/// weights from memory that no cache holds. Throws Error(kUnsupported) where there is no GPU.
std::vector<KernelTime> time_kernels(unsigned rounds, const Progress& progress);

}  // namespace upg::cuda
