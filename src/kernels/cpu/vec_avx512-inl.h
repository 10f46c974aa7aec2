// Vector operations for AVX-512: the vocabulary of elementwise-inl.h, attend-inl.h and gemm-inl.h. A vector has 16
// floats with every instruction set, and sums add its halves in the same order, so that results have the same bits.
// Included by sources compiled for this instruction set only; no standard library here, whose inline functions the
// linker might keep in this instruction set for everybody.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace upg::kernels {
namespace {

using V = __m512;
constexpr uint64_t kV = 16;          // floats in V
constexpr unsigned kRegisters = 32;  // that hold a V

inline __mmask16 first(uint64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }  // n <= 16

inline V zero() { return _mm512_setzero_ps(); }
inline V set1(float x) { return _mm512_set1_ps(x); }
inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline V load(const float* p, uint64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
inline void store(float* p, V x) { _mm512_storeu_ps(p, x); }
inline void store(float* p, V x, uint64_t n) { _mm512_mask_storeu_ps(p, first(n), x); }
inline V add(V a, V b) { return _mm512_add_ps(a, b); }
inline V sub(V a, V b) { return _mm512_sub_ps(a, b); }
inline V mul(V a, V b) { return _mm512_mul_ps(a, b); }
inline V div(V a, V b) { return _mm512_div_ps(a, b); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
inline V max(V a, V b) { return _mm512_max_ps(a, b); }
inline V min(V a, V b) { return _mm512_min_ps(a, b); }
inline V abs(V a) { return _mm512_abs_ps(a); }
inline V round(V a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline V scale2(V a, V n) { return _mm512_scalef_ps(a, n); }  // a * 2^n, n integral
inline float sum(V a) { return _mm512_reduce_add_ps(a); }
/// The sums of four vectors, each added up as by sum().
inline void sum4(const V* a, float* out) {
  const V ab = _mm512_add_ps(_mm512_shuffle_f32x4(a[0], a[1], 0x44), _mm512_shuffle_f32x4(a[0], a[1], 0xee));
  const V cd = _mm512_add_ps(_mm512_shuffle_f32x4(a[2], a[3], 0x44), _mm512_shuffle_f32x4(a[2], a[3], 0xee));
  V x = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  x = _mm512_add_ps(x, _mm512_permute_ps(x, 0x4e));
  x = _mm512_add_ps(x, _mm512_permute_ps(x, 0xb1));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, x)));
}
inline float largest(V a) { return _mm512_reduce_max_ps(a); }

inline V bf16(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
inline V f16(__m256i h) { return _mm512_cvtph_ps(h); }
inline V int8(__m128i b) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b)); }
inline __m256i load16(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m256i load16(const void* p, uint64_t n) { return _mm256_maskz_loadu_epi16(first(n), p); }
inline __m128i load8(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline __m128i load8(const void* p, uint64_t n) { return _mm_maskz_loadu_epi8(first(n), p); }

/// Sixteen floats as IEEE halves, nearest even.
inline void store_f16(uint16_t* p, V x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
/// Sixteen floats in [-127, 127] to int8, nearest even; returns their sum.
inline int32_t store_int8(int8_t* p, V x) {
  const __m512i q = _mm512_cvtps_epi32(x);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(q));
  return _mm512_reduce_add_epi32(q);
}

}  // namespace
}  // namespace upg::kernels
