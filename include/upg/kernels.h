// Which kernels this build has, and which of them this machine will use.
#pragma once

#include <string>
#include <vector>

#include "upg/error.h"

namespace upg {

struct KernelReport {
  std::string op;       // "gemv"
  std::string variant;  // codec, activation or cache type: "trellis3_q8"; "any" at its start: every codec
  std::string name;     // "gemv_trellis3_q8__avx512vnni"
  bool selected = false;
  std::string reason;  // why not, where it is not selected
};

/// In order of preference. UPG_FORCE_KERNEL in the environment (kernel names or instruction sets, comma-separated)
/// restricts the choice; throws Error(kInvalidArgument) if it names something unknown.
std::vector<KernelReport> kernel_report();

}  // namespace upg
