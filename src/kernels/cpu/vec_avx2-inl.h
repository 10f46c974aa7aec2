// Vector operations for AVX2 with FMA and F16C; the same vocabulary and the same rule as vec_avx512-inl.h.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace upg::kernels {
namespace {

struct V {
  __m256 a, b;  // lanes 0 to 7 and 8 to 15
};
constexpr uint64_t kV = 16;         // floats in V
constexpr unsigned kRegisters = 8;  // that hold a V

alignas(32) constexpr int32_t kMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
inline __m256i first(uint64_t n) {  // n <= 8
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask + 8 - n));
}
inline __m256i low(uint64_t n) { return first(n < 8 ? n : 8); }
inline __m256i high(uint64_t n) { return first(n < 8 ? 0 : n - 8); }

inline V zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline V set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline V load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline V load(const float* p, uint64_t n) {
  return {_mm256_maskload_ps(p, low(n)), n < 8 ? _mm256_setzero_ps() : _mm256_maskload_ps(p + 8, high(n))};
}
inline void store(float* p, V x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline void store(float* p, V x, uint64_t n) {
  _mm256_maskstore_ps(p, low(n), x.a);
  if (n > 8) _mm256_maskstore_ps(p + 8, high(n), x.b);
}
inline V add(V x, V y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline V sub(V x, V y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline V mul(V x, V y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline V div(V x, V y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline V fma(V x, V y, V z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline V max(V x, V y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline V min(V x, V y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline V abs(V x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline V round(V x) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, kNearest), _mm256_round_ps(x.b, kNearest)};
}

/// x * 2^n for integral n in [-252, 254]: in two factors, so that results below 2^-126 stay right.
inline __m256 scale2(__m256 x, __m256 n) {
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i rest = _mm256_sub_epi32(whole, half);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256 f = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 g = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(x, f), g);
}
inline V scale2(V x, V n) { return {scale2(x.a, n.a), scale2(x.b, n.b)}; }

inline float sum(V v) {
  const __m256 halves = _mm256_add_ps(v.a, v.b);
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
/// The sums of four vectors, each added up as by sum().
inline void sum4(const V* a, float* out) {
  for (int i = 0; i < 4; ++i) out[i] = sum(a[i]);
}
inline float largest(V v) {
  const __m256 halves = _mm256_max_ps(v.a, v.b);
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

struct Half16 {  // 16 elements of two bytes
  __m128i a, b;
};
inline __m256 bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
inline V bf16(Half16 h) { return {bf16(h.a), bf16(h.b)}; }
inline V f16(Half16 h) { return {_mm256_cvtph_ps(h.a), _mm256_cvtph_ps(h.b)}; }
inline __m256 int8x8(__m128i b) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)); }
inline V int8(__m128i b) { return {int8x8(b), int8x8(_mm_srli_si128(b, 8))}; }
inline Half16 load16(const void* p) {
  const auto* parts = static_cast<const __m128i*>(p);
  return {_mm_loadu_si128(parts), _mm_loadu_si128(parts + 1)};
}
inline Half16 load16(const void* p, uint64_t n) {
  alignas(16) uint16_t part[16] = {};
  __builtin_memcpy(part, p, n * 2);
  return load16(part);
}
inline __m128i load8(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline __m128i load8(const void* p, uint64_t n) {
  alignas(16) uint8_t part[16] = {};
  __builtin_memcpy(part, p, n);
  return _mm_load_si128(reinterpret_cast<const __m128i*>(part));
}

/// Sixteen floats as IEEE halves, nearest even.
inline void store_f16(uint16_t* p, V x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
/// Sixteen floats in [-127, 127] to int8, nearest even; returns their sum.
inline int32_t store_int8(int8_t* p, V x) {
  const __m256i a = _mm256_cvtps_epi32(x.a), b = _mm256_cvtps_epi32(x.b);
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  const __m256i pairs = _mm256_add_epi32(a, b);
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

}  // namespace
}  // namespace upg::kernels
