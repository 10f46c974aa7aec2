// AVX2 with the VEX form of vpdpbusd: client processors from 2021 on that have no AVX-512.
#include <immintrin.h>

#include "kernels/cpu/mdcsr_avx2-inl.h"
#include "kernels/cpu/unroll-inl.h"

namespace upg::kernels {
namespace {

constexpr unsigned kSlots = 8;  // of four columns: slot s holds columns 4 s .. 4 s + 3 of the block
constexpr int kBias = 128;

// Four activations for every lane: see trellis_avx512-inl.h.
inline __m256i four_columns(const int8_t* q) {
  __m256i x;
  __asm__("vpbroadcastd %1, %0" : "=x"(x) : "m"(*reinterpret_cast<const int32_t __attribute__((may_alias))*>(q)));
  return x;
}

// Products of one block of one token: 32 columns of 8 rows, exact.
inline __m256i dot(const __m256i* levels, const int8_t* q, int32_t offset) {
  __m256i even = _mm256_set1_epi32(offset), odd = _mm256_setzero_si256();
  UPG_UNROLL
  for (unsigned s = 0; s < kSlots; s += 2) {
    even = _mm256_dpbusd_avx_epi32(even, levels[s], four_columns(q + 4 * s));
    odd = _mm256_dpbusd_avx_epi32(odd, levels[s + 1], four_columns(q + 4 * s + 4));
  }
  return _mm256_add_epi32(even, odd);
}

}  // namespace
}  // namespace upg::kernels

#include "kernels/cpu/trellis_avx2-inl.h"

UPG_TRELLIS_KERNELS(avxvnni)
