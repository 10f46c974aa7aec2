// Vector operations for AArch64; the same vocabulary and the same rule as vec_avx512-inl.h.
#pragma once

#include <arm_neon.h>
#include <stdint.h>

#include "kernels/cpu/unroll-inl.h"

namespace upg::kernels {
namespace {

constexpr unsigned kQuads = 4;
struct V {
  float32x4_t q[kQuads];  // lanes 0 to 3, 4 to 7, ...
};
constexpr uint64_t kV = 16;         // floats in V
constexpr unsigned kRegisters = 8;  // that hold a V

// A vector from one operation on each quarter of others.
template <typename F>
inline V quarters(F f) {
  return {{f(0), f(1), f(2), f(3)}};
}

inline V set1(float x) {
  return quarters([x](int) { return vdupq_n_f32(x); });
}
inline V zero() { return set1(0); }
inline V load(const float* p) {
  return quarters([p](int i) { return vld1q_f32(p + 4 * i); });
}
inline V load(const float* p, uint64_t n) {
  float part[kV] = {};
  __builtin_memcpy(part, p, n * sizeof *p);
  return load(part);
}
inline void store(float* p, V x) {
  for (unsigned i = 0; i < kQuads; ++i) vst1q_f32(p + 4 * i, x.q[i]);
}
inline void store(float* p, V x, uint64_t n) {
  float part[kV];
  store(part, x);
  __builtin_memcpy(p, part, n * sizeof *p);
}
inline V add(V x, V y) {
  return quarters([&](int i) { return vaddq_f32(x.q[i], y.q[i]); });
}
inline V sub(V x, V y) {
  return quarters([&](int i) { return vsubq_f32(x.q[i], y.q[i]); });
}
inline V mul(V x, V y) {
  return quarters([&](int i) { return vmulq_f32(x.q[i], y.q[i]); });
}
inline V div(V x, V y) {
  return quarters([&](int i) { return vdivq_f32(x.q[i], y.q[i]); });
}
inline V fma(V x, V y, V z) {
  return quarters([&](int i) { return vfmaq_f32(z.q[i], x.q[i], y.q[i]); });
}
inline V max(V x, V y) {
  return quarters([&](int i) { return vmaxq_f32(x.q[i], y.q[i]); });
}
inline V min(V x, V y) {
  return quarters([&](int i) { return vminq_f32(x.q[i], y.q[i]); });
}
inline V abs(V x) {
  return quarters([&](int i) { return vabsq_f32(x.q[i]); });
}
inline V round(V x) {
  return quarters([&](int i) { return vrndnq_f32(x.q[i]); });
}

/// x * 2^n for integral n in [-252, 254]: in two factors, so that results below 2^-126 stay right.
inline V scale2(V x, V n) {
  return quarters([&](int i) {
    const int32x4_t whole = vcvtnq_s32_f32(n.q[i]);
    const int32x4_t half = vshrq_n_s32(whole, 1);
    const int32x4_t rest = vsubq_s32(whole, half);
    const int32x4_t bias = vdupq_n_s32(127);
    const float32x4_t f = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    const float32x4_t g = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
    return vmulq_f32(vmulq_f32(x.q[i], f), g);
  });
}

inline float sum(V x) {
  const float32x4_t half = vaddq_f32(vaddq_f32(x.q[0], x.q[2]), vaddq_f32(x.q[1], x.q[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(half), vget_high_f32(half));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
/// The sums of four vectors, each added up as by sum().
inline void sum4(const V* a, float* out) {
  for (int i = 0; i < 4; ++i) out[i] = sum(a[i]);
}
inline float largest(V x) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.q[0], x.q[2]), vmaxq_f32(x.q[1], x.q[3]))); }

struct Half16 {  // 16 elements of two bytes
  uint16x4_t q[kQuads];
};
inline V bf16(Half16 h) {
  return quarters([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(h.q[i], 16)); });
}
inline V f16(Half16 h) {
  return quarters([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(h.q[i])); });
}
inline Half16 load16(const void* p) {
  Half16 h;
  __builtin_memcpy(&h, p, sizeof h);
  return h;
}
inline Half16 load16(const void* p, uint64_t n) {
  Half16 h = {};
  __builtin_memcpy(&h, p, 2 * n);
  return h;
}
inline V int8(int8x16_t b) {
  const int16x8_t low = vmovl_s8(vget_low_s8(b)), high = vmovl_s8(vget_high_s8(b));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
inline int8x16_t load8(const void* p) { return vld1q_s8(static_cast<const int8_t*>(p)); }
inline int8x16_t load8(const void* p, uint64_t n) {
  int8_t part[16] = {};
  __builtin_memcpy(part, p, n);
  return vld1q_s8(part);
}

/// Sixteen floats as IEEE halves, nearest even.
inline void store_f16(uint16_t* p, V x) {
  for (unsigned i = 0; i < kQuads; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.q[i])));
}
/// Sixteen floats in [-127, 127] to int8, nearest even; returns their sum. What is not a number becomes 0.
inline int32_t store_int8(int8_t* p, V x) {
  int32x4_t q[kQuads];
  for (unsigned i = 0; i < kQuads; ++i) q[i] = vcvtnq_s32_f32(x.q[i]);
  const int16x8_t low = vcombine_s16(vqmovn_s32(q[0]), vqmovn_s32(q[1]));
  const int16x8_t high = vcombine_s16(vqmovn_s32(q[2]), vqmovn_s32(q[3]));
  vst1q_s8(p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
  return vaddvq_s32(vaddq_s32(vaddq_s32(q[0], q[1]), vaddq_s32(q[2], q[3])));
}

}  // namespace
}  // namespace upg::kernels
