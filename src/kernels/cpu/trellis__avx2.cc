// Without vpdpbusd: |activation| times level with the activation's sign fits vpmaddubsw, because two products of at
// most 127 * 127 stay below 2^15.
#include <immintrin.h>

#include "kernels/cpu/mdcsr_avx2-inl.h"
#include "kernels/cpu/unroll-inl.h"

namespace upg::kernels {
namespace {

constexpr unsigned kSlots = 8;  // of four columns: slot s holds columns 4 s .. 4 s + 3 of the block
constexpr int kBias = 0;

// Four activations for every lane: see trellis_avx512-inl.h.
inline __m256i four_columns(const int8_t* q) {
  __m256i x;
  __asm__("vpbroadcastd %1, %0" : "=x"(x) : "m"(*reinterpret_cast<const int32_t __attribute__((may_alias))*>(q)));
  return x;
}

// Products of one block of one token: 32 columns of 8 rows, exact.
inline __m256i dot(const __m256i* levels, const int8_t* q, int32_t) {
  __m256i sum = _mm256_setzero_si256();
  UPG_UNROLL
  for (unsigned s = 0; s < kSlots; ++s) {
    const __m256i x = four_columns(q + 4 * s);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(levels[s], x));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  return sum;
}

}  // namespace
}  // namespace upg::kernels

#include "kernels/cpu/trellis_avx2-inl.h"

UPG_TRELLIS_KERNELS(avx2)
