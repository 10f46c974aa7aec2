// What a kernel is: a noexcept function over raw pointers that allocates nothing, a row in its op's list, and a name
// <op>_<codec or activation>__<isa>. src/kernels/kernels.inc is THE list; the first row that can run is chosen.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/args.h"

namespace upg::kernels {

/// A row. `variant` is the codec, activation or cache type that the kernel is for, as it stands in the name;
/// "any" at its start stands for every codec.
template <typename Fn>
struct Kernel {
  std::string_view name;     // "gemv_trellis3_q8__avx2"
  std::string_view variant;  // "trellis3_q8"
  std::string_view isa;      // "avx2"; "ref" is the scalar reference
  double bound;              // error allowed, in units of the op's computed bound (conformance tests); 0: bit-exact
  Fn run;
};

#define UPG_OP(op, Fn) std::span<const Kernel<Fn>> op##_kernels();
#include "kernels/ops.inc"
#undef UPG_OP

/// Whether a row's variant serves `wanted`: the same, or "any" followed by what `wanted` ends with.
bool variant_matches(std::string_view row, std::string_view wanted);

/// Whether this machine can run kernels of the instruction set, and if not, why.
bool isa_available(std::string_view isa, std::string* why_not = nullptr);

/// First row of `list` for `variant` that can run here; UPG_FORCE_KERNEL (comma-separated kernel names or instruction
/// sets, "avx2" or "gemv_trellis3_q8__ref") restricts what is considered where it matches any row of the variant.
/// Throws Error(kUnsupported) if there is none.
template <typename Fn>
const Kernel<Fn>& select(std::span<const Kernel<Fn>> list, std::string_view variant);

/// Every row of every op, for `upg kernels`, in list order.
struct KernelStatus {
  std::string_view op, variant, name;
  bool selected;       // what select() returns for its variant
  std::string reason;  // why it cannot run here or was not chosen; empty for the selected
};
std::vector<KernelStatus> kernel_statuses();

/// A name in UPG_FORCE_KERNEL that matches no row at all is a mistake: throws Error(kInvalidArgument).
void check_forced_kernels();

}  // namespace upg::kernels
