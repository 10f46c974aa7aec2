// The float product behind prompt processing: panels of 16 unpacked rows times many tokens. Register blocking after
// Goto & van de Geijn 2008; cache blocking is the caller's (ops/linear.cc). Include after vec_<isa>-inl.h.
#pragma once

#include "kernels/args.h"
#include "kernels/cpu/unroll-inl.h"

namespace upg::kernels {
namespace {

// kTokens tokens by kPanels panels, all accumulators in registers.
template <unsigned kPanels, unsigned kTokens>
inline void block(const GemmArgs& args, uint64_t t) {
  static_assert(kV == 16, "a vector is a panel's column");
  V acc[kTokens][kPanels];
  const float* x = args.x + t * args.x_stride;
  float* y = args.y + t * args.y_stride;
  UPG_UNROLL
  for (unsigned i = 0; i < kTokens; ++i) UPG_UNROLL
  for (unsigned p = 0; p < kPanels; ++p) acc[i][p] = load(y + i * args.y_stride + p * kV);
  for (uint64_t k = 0; k < args.depth; ++k) {
    V a[kPanels];
    UPG_UNROLL
    for (unsigned p = 0; p < kPanels; ++p) a[p] = load(args.a + (p * args.depth + k) * kV);
    UPG_UNROLL
    for (unsigned i = 0; i < kTokens; ++i) {
      const V xk = set1(x[i * args.x_stride + k]);
      UPG_UNROLL
      for (unsigned p = 0; p < kPanels; ++p) acc[i][p] = fma(a[p], xk, acc[i][p]);
    }
  }
  UPG_UNROLL
  for (unsigned i = 0; i < kTokens; ++i) UPG_UNROLL
  for (unsigned p = 0; p < kPanels; ++p) store(y + i * args.y_stride + p * kV, acc[i][p]);
}

// 32 registers hold 2 panels x 12 tokens, 8 hold 1 panel x 6 tokens.
template <unsigned kPanels>
inline void gemm_panels(const GemmArgs& args) {
  constexpr unsigned kTokens = (kRegisters >= 32 ? 24 : 6) / kPanels;
  uint64_t t = 0;
  for (; t + kTokens <= args.n_tokens; t += kTokens) block<kPanels, kTokens>(args, t);
  for (; t + 2 <= args.n_tokens; t += 2) block<kPanels, 2>(args, t);
  for (; t < args.n_tokens; ++t) block<kPanels, 1>(args, t);
}

inline void gemm(const GemmArgs& args) {
  if constexpr (kRegisters >= 32) {
    if (args.panels == 2) return gemm_panels<2>(args);
  }
  GemmArgs one = args;
  one.panels = 1;
  for (uint64_t p = 0; p < args.panels; ++p) {
    one.a = args.a + p * args.depth * 16;
    one.y = args.y + p * 16;
    gemm_panels<1>(one);
  }
}

}  // namespace
}  // namespace upg::kernels

#define UPG_GEMM_KERNELS(isa)                                         \
  namespace upg::kernels {                                            \
  void gemm_f32__##isa(const GemmArgs& args) noexcept { gemm(args); } \
  }
