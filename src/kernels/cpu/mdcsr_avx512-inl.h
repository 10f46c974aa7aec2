// A row of an MdCSR matrix times a float vector, 16 entries at a time: columns by a prefix sum over the deltas, then
// single loads from x. For sources compiled for AVX-512.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "codec/layout/mdcsr.h"
#include "kernels/cpu/lookup-inl.h"

namespace upg::kernels {
namespace {

// Indices go through the stack in pairs. On Zen 5, 10% of 5120 x 5120: 3.0 entries/ns, vgatherdps 2.1, a scalar loop
// with four accumulators 2.3; without any lookup 33. Not tried: vpermt2ps over windows of x, which should pay from
// about 20% density on.
inline __m512 lookup16(const float* table, __m512i index) {
  alignas(64) uint64_t pair[8];
  _mm512_store_si512(pair, index);
  __m512 v = _mm512_castps128_ps512(lookup4(table, pair[0], pair[1]));
  v = _mm512_insertf32x4(v, lookup4(table, pair[2], pair[3]), 1);
  v = _mm512_insertf32x4(v, lookup4(table, pair[4], pair[5]), 2);
  return _mm512_insertf32x4(v, lookup4(table, pair[6], pair[7]), 3);
}

// sum[i] = d[0] + ... + d[i]
inline __m512i prefix_sum(__m128i deltas) {
  __m256i sum = _mm256_cvtepu8_epi16(deltas);  // two groups of 8, joined below
  sum = _mm256_add_epi16(sum, _mm256_slli_si256(sum, 2));
  sum = _mm256_add_epi16(sum, _mm256_slli_si256(sum, 4));
  sum = _mm256_add_epi16(sum, _mm256_slli_si256(sum, 8));
  const __m512i wide = _mm512_cvtepu16_epi32(sum);
  return _mm512_mask_add_epi32(wide, 0xff00, wide, _mm512_permutexvar_epi32(_mm512_set1_epi32(7), wide));
}

template <bool kManifold>
struct Row {
  const MdcsrView& w;
  const float* x;
  __m512i base = _mm512_setzero_si512();  // column of the last entry so far, in every lane

  // acc + the products of the `mask`ed entries from k on, at least one. Lanes past them repeat the last column, which
  // is safe to load, as are bridges' columns; neither takes part in the sum.
  inline __m512 step(__m512 acc, uint64_t k, __mmask16 mask) {
    const __m512i sum = prefix_sum(_mm_maskz_loadu_epi8(mask, w.delta_indices + k));
    const __m512i column = _mm512_add_epi32(base, sum);
    base = _mm512_add_epi32(base, _mm512_permutexvar_epi32(_mm512_set1_epi32(15), sum));
    const __m128i value = _mm_maskz_loadu_epi8(mask, w.values + k);
    const __mmask16 live = _mm_mask_cmpneq_epi8_mask(mask, value, _mm_set1_epi8(kSkipValue));
    __m512 v = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(value));
    if constexpr (kManifold) {
      const __m256i primes = _mm256_maskz_loadu_epi16(mask, w.prime_indices + k);
      v = _mm512_add_ps(v, lookup16(w.prime_levels, _mm512_cvtepu16_epi32(primes)));
    }
    return _mm512_mask3_fmadd_ps(v, lookup16(x, column), acc, live);
  }
};

/// W[r] x
template <bool kManifold>
inline float mdcsr_row_product(const MdcsrView& w, const float* x, uint64_t r) {
  Row<kManifold> row{w, x};
  __m512 even = _mm512_setzero_ps();
  __m512 odd = _mm512_setzero_ps();
  uint64_t k = w.row_pointers[r];
  const uint64_t end = w.row_pointers[r + 1];
  for (; k + 32 <= end; k += 32) {
    even = row.step(even, k, 0xffff);
    odd = row.step(odd, k + 16, 0xffff);
  }
  if (k + 16 <= end) {
    even = row.step(even, k, 0xffff);
    k += 16;
  }
  if (k < end) odd = row.step(odd, k, static_cast<__mmask16>((1u << (end - k)) - 1));
  return w.scales[r] * _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
}

}  // namespace
}  // namespace upg::kernels
