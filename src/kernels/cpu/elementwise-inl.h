// Norm, activation function, quantisation, and products of uncompressed rows, over the vocabulary of vec_<isa>-inl.h.
// Include after it, define UPG_ISA, and expand UPG_ELEMENTWISE_KERNELS once.
#pragma once

#include "kernels/args.h"
#include "kernels/cpu/element-inl.h"
#include "kernels/cpu/exp-inl.h"
#include "kernels/cpu/unroll-inl.h"

namespace upg::kernels {
namespace {

inline float dot(const float* a, const float* b, uint64_t n) {
  V acc0 = zero(), acc1 = zero();
  uint64_t i = 0;
  for (; i + 2 * kV <= n; i += 2 * kV) {
    acc0 = fma(load(a + i), load(b + i), acc0);
    acc1 = fma(load(a + i + kV), load(b + i + kV), acc1);
  }
  for (; i + kV <= n; i += kV) acc0 = fma(load(a + i), load(b + i), acc0);
  if (i < n) acc1 = fma(load(a + i, n - i), load(b + i, n - i), acc1);
  return sum(add(acc0, acc1));
}

inline void rms_norm(const RmsNormArgs& args) {
  for (uint64_t t = 0; t < args.n_tokens; ++t) {
    const float* x = args.x + t * args.width;
    float* y = args.y + t * args.width;
    const float mean = dot(x, x, args.width) / static_cast<float>(args.width);
    const V scale = set1(1.0f / __builtin_sqrtf(mean + args.epsilon));
    uint64_t i = 0;
    for (; i + kV <= args.width; i += kV) store(y + i, mul(mul(load(x + i), scale), load(args.weight + i)));
    const uint64_t n = args.width - i;
    if (n) store(y + i, mul(mul(load(x + i, n), scale), load(args.weight + i, n)), n);
  }
}

inline void to_f16(const ToF16Args& args) {
  uint64_t i = 0;
  for (; i + kV <= args.n; i += kV) store_f16(args.y + i, load(args.x + i));
  if (i == args.n) return;
  uint16_t last[kV];
  store_f16(last, load(args.x + i, args.n - i));
  __builtin_memcpy(args.y + i, last, (args.n - i) * sizeof *last);
}

struct Silu {
  static V of(V x) { return div(x, add(set1(1.0f), exp(sub(zero(), x)))); }
};

// (1 + tanh(u)) / 2 = 1 / (1 + e^(-2 u)). The cube of a large x must not overflow to an infinity that becomes a NaN.
struct GeluTanh {
  static V of(V x) {
    const V near = min(max(x, set1(-1e6f)), set1(1e6f));
    const V twice_u = mul(near, fma(mul(near, near), set1(0.0713548162726f), set1(1.59576912161f)));
    return div(x, add(set1(1.0f), exp(sub(zero(), twice_u))));
  }
};

template <typename Function>
inline void glu(const GluArgs& args) {
  for (uint64_t t = 0; t < args.n_tokens; ++t) {
    const float* gate = args.gate_up + 2 * t * args.width;
    const float* up = gate + args.width;
    float* y = args.y + t * args.width;
    uint64_t i = 0;
    for (; i + kV <= args.width; i += kV) store(y + i, mul(Function::of(load(gate + i)), load(up + i)));
    const uint64_t n = args.width - i;
    if (n) store(y + i, mul(Function::of(load(gate + i, n)), load(up + i, n)), n);
  }
}

// The least power of two not below largest / 127; 0 below the floor.
inline float power_of_two_scale(float largest) {
  if (largest < kQuantizeFloor) return 0;
  const float scale = largest / 127.0f;
  uint32_t bits;
  __builtin_memcpy(&bits, &scale, 4);
  bits = (bits + 0x7fffff) & 0x7f800000;
  float rounded;
  __builtin_memcpy(&rounded, &bits, 4);
  return rounded;
}

inline void quantize(const QuantizeArgs& args) {
  for (uint64_t begin = 0; begin < args.cols; begin += 32) {
    V x[32 / kV];
    V top = zero();
    for (uint64_t v = 0; v < 32 / kV; ++v) {
      const uint64_t at = begin + v * kV;
      x[v] = at + kV <= args.cols ? load(args.x + at) : at < args.cols ? load(args.x + at, args.cols - at) : zero();
      top = max(top, abs(x[v]));
    }
    const float scale = power_of_two_scale(largest(top));
    const float inverse = scale > 0 ? 1 / scale : 0.0f;
    int32_t total = 0;
    const uint64_t block = begin / 32 * args.stride;
    int8_t* q = args.q + 32 * block;
    for (uint64_t v = 0; v < 32 / kV; ++v) total += store_int8(q + v * kV, mul(x[v], set1(inverse)));
    args.scale[block] = scale;
    args.offset[block] = -128 * total;
  }
}

// kRows rows of `data` [rows, cols] at once: each load of x serves them all.
template <typename Element, unsigned kRows>
inline void product_of_rows(const unsigned char* data, uint64_t cols, const float* x, float* y, uint64_t row) {
  const uint64_t stride = cols * Element::kBytes;
  const unsigned char* p = data + row * stride;
  V acc[kRows];
  UPG_UNROLL
  for (unsigned r = 0; r < kRows; ++r) acc[r] = zero();
  uint64_t c = 0;
  for (; c + kV <= cols; c += kV) {
    const V xc = load(x + c);
    UPG_UNROLL
    for (unsigned r = 0; r < kRows; ++r) acc[r] = fma(Element::get(p + r * stride + c * Element::kBytes), xc, acc[r]);
  }
  if (c < cols) {
    const V xc = load(x + c, cols - c);
    UPG_UNROLL
    for (unsigned r = 0; r < kRows; ++r)
      acc[r] = fma(Element::get(p + r * stride + c * Element::kBytes, cols - c), xc, acc[r]);
  }
  UPG_UNROLL
  for (unsigned r = 0; r < kRows; ++r) y[row + r] = sum(acc[r]);
}

template <typename Element>
inline void gemv_rows(const unsigned char* data, uint64_t cols, const GemvArgs& args) {
  constexpr unsigned kRows = kRegisters >= 32 ? 8 : 4;
  uint64_t r = args.row_begin;
  for (; r + kRows <= args.row_end; r += kRows) product_of_rows<Element, kRows>(data, cols, args.x, args.y, r);
  for (; r < args.row_end; ++r) product_of_rows<Element, 1>(data, cols, args.x, args.y, r);
}

template <typename Element>
inline void gemv_dense(const GemvArgs& args) {
  const DenseView& w = *static_cast<const DenseView*>(args.weights);
  gemv_rows<Element>(w.data, w.cols, args);
}

inline void gemv_int8(const GemvArgs& args) {
  const Int8View& w = *static_cast<const Int8View*>(args.weights);
  gemv_rows<Int8Element>(reinterpret_cast<const unsigned char*>(w.values), w.cols, args);
  for (uint64_t r = args.row_begin; r < args.row_end; ++r) args.y[r] *= w.scales[r];
}

}  // namespace
}  // namespace upg::kernels

#define UPG_ELEMENTWISE_KERNELS(isa)                                                          \
  namespace upg::kernels {                                                                    \
  void rms_norm_f32__##isa(const RmsNormArgs& args) noexcept { rms_norm(args); }              \
  void to_f16_f32__##isa(const ToF16Args& args) noexcept { to_f16(args); }                    \
  void glu_silu__##isa(const GluArgs& args) noexcept { glu<Silu>(args); }                     \
  void glu_gelu_tanh__##isa(const GluArgs& args) noexcept { glu<GeluTanh>(args); }            \
  void quantize_q8__##isa(const QuantizeArgs& args) noexcept { quantize(args); }              \
  void gemv_bf16_f32__##isa(const GemvArgs& args) noexcept { gemv_dense<Bf16Element>(args); } \
  void gemv_f16_f32__##isa(const GemvArgs& args) noexcept { gemv_dense<F16Element>(args); }   \
  void gemv_f32_f32__##isa(const GemvArgs& args) noexcept { gemv_dense<F32Element>(args); }   \
  void gemv_int8_f32__##isa(const GemvArgs& args) noexcept { gemv_int8(args); }               \
  }
