// A row of an MdCSR matrix times a float vector, 8 entries at a time: columns by a prefix sum over the deltas, then
// single loads from x. For sources compiled for AVX2.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "codec/layout/mdcsr.h"
#include "kernels/cpu/lookup-inl.h"

namespace upg::kernels {
namespace {

// Indices go through the stack in pairs, as half as many loads: on Zen 5 this beats vgatherdps (2.9 against 2.6
// entries/ns at 10% of 5120 x 5120; a scalar loop with four accumulators 2.3).
inline __m256 lookup8(const float* table, __m256i index) {
  alignas(32) uint64_t pair[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(pair), index);
  return _mm256_set_m128(lookup4(table, pair[2], pair[3]), lookup4(table, pair[0], pair[1]));
}

// sum[i] = d[0] + ... + d[i]; at most 2040, so 16 bits do.
inline __m256i prefix_sum(__m128i deltas) {
  __m128i sum = _mm_cvtepu8_epi16(deltas);
  sum = _mm_add_epi16(sum, _mm_slli_si128(sum, 2));
  sum = _mm_add_epi16(sum, _mm_slli_si128(sum, 4));
  sum = _mm_add_epi16(sum, _mm_slli_si128(sum, 8));
  return _mm256_cvtepu16_epi32(sum);
}

template <bool kManifold>
struct Row {
  const float* x;
  const float* prime_levels;
  __m256i base = _mm256_setzero_si256();  // column of the last entry so far, in every lane

  // acc + 8 products. Bridges load x (their columns are in range) but put 0 in its place: x may be infinite there.
  inline __m256 step(__m256 acc, const uint8_t* deltas, const int8_t* values, const uint16_t* primes) {
    const __m256i sum = prefix_sum(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(deltas)));
    const __m256i column = _mm256_add_epi32(base, sum);
    base = _mm256_add_epi32(base, _mm256_permutevar8x32_epi32(sum, _mm256_set1_epi32(7)));
    const __m256i value = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(values)));
    const __m256i bridge = _mm256_cmpeq_epi32(value, _mm256_set1_epi32(kSkipValue));
    __m256 v = _mm256_cvtepi32_ps(value);
    if constexpr (kManifold) {
      const __m256i prime = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(primes)));
      v = _mm256_add_ps(v, lookup8(prime_levels, prime));
    }
    return _mm256_fmadd_ps(v, _mm256_andnot_ps(_mm256_castsi256_ps(bridge), lookup8(x, column)), acc);
  }
};

inline float reduce(__m256 v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

/// W[r] x
template <bool kManifold>
inline float mdcsr_row_product(const MdcsrView& w, const float* x, uint64_t r) {
  Row<kManifold> row{x, w.prime_levels};
  __m256 even = _mm256_setzero_ps();
  __m256 odd = _mm256_setzero_ps();
  const auto primes = [&w](uint64_t k) { return kManifold ? w.prime_indices + k : nullptr; };
  uint64_t k = w.row_pointers[r];
  const uint64_t end = w.row_pointers[r + 1];
  for (; k + 16 <= end; k += 16) {
    even = row.step(even, w.delta_indices + k, w.values + k, primes(k));
    odd = row.step(odd, w.delta_indices + k + 8, w.values + k + 8, primes(k + 8));
  }
  if (k + 8 <= end) {
    even = row.step(even, w.delta_indices + k, w.values + k, primes(k));
    k += 8;
  }
  if (k < end) {
    // The tail, padded with bridges that stay on the last column.
    uint8_t deltas[8] = {};
    int8_t values[8] = {kSkipValue, kSkipValue, kSkipValue, kSkipValue, kSkipValue, kSkipValue, kSkipValue, kSkipValue};
    uint16_t prime_indices[8] = {};
    for (uint64_t i = 0; i < end - k; ++i) {
      deltas[i] = w.delta_indices[k + i];
      values[i] = w.values[k + i];
      if constexpr (kManifold) prime_indices[i] = w.prime_indices[k + i];
    }
    odd = row.step(odd, deltas, values, prime_indices);
  }
  return w.scales[r] * reduce(_mm256_add_ps(even, odd));
}

}  // namespace
}  // namespace upg::kernels
