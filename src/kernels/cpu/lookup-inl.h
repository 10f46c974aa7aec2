// Four table entries by index without a gather instruction; for sources compiled for one instruction set.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace upg::kernels {
namespace {

// table[a's low half], table[a's high half], table[b's low half], table[b's high half]
inline __m128 lookup4(const float* table, uint64_t a, uint64_t b) {
  __m128 v = _mm_load_ss(table + (a & 0xffffffff));
  v = _mm_insert_ps(v, _mm_load_ss(table + (a >> 32)), 0x10);
  v = _mm_insert_ps(v, _mm_load_ss(table + (b & 0xffffffff)), 0x20);
  return _mm_insert_ps(v, _mm_load_ss(table + (b >> 32)), 0x30);
}

}  // namespace
}  // namespace upg::kernels
