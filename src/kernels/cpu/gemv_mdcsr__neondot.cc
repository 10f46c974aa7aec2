// MdCSR times a float vector on AArch64.
#include "codec/layout/mdcsr.h"
#include "kernels/args.h"
#include "kernels/cpu/mdcsr_neon-inl.h"

namespace upg::kernels {
namespace {

template <bool kManifold>
inline void gemv(const GemvArgs& args) {
  const MdcsrView& w = *static_cast<const MdcsrView*>(args.weights);
  for (uint64_t r = args.row_begin; r < args.row_end; ++r) args.y[r] = mdcsr_row_product<kManifold>(w, args.x, r);
}

}  // namespace

void gemv_mdcsr_f32__neondot(const GemvArgs& args) noexcept { gemv<false>(args); }
void gemv_mdcsr_manifold_f32__neondot(const GemvArgs& args) noexcept { gemv<true>(args); }

}  // namespace upg::kernels
