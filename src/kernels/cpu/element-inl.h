// Stored elements, of weights and of caches, as vectors: whole ones and the last n of a row. Include after
// vec_<isa>-inl.h.
#pragma once

#include <stdint.h>

namespace upg::kernels {
namespace {

struct Bf16Element {
  static constexpr uint64_t kBytes = 2;
  static V get(const unsigned char* p) { return bf16(load16(p)); }
  static V get(const unsigned char* p, uint64_t n) { return bf16(load16(p, n)); }
};
struct F16Element {
  static constexpr uint64_t kBytes = 2;
  static V get(const unsigned char* p) { return f16(load16(p)); }
  static V get(const unsigned char* p, uint64_t n) { return f16(load16(p, n)); }
};
struct F32Element {
  static constexpr uint64_t kBytes = 4;
  static V get(const unsigned char* p) { return load(reinterpret_cast<const float*>(p)); }
  static V get(const unsigned char* p, uint64_t n) { return load(reinterpret_cast<const float*>(p), n); }
};
struct Int8Element {
  static constexpr uint64_t kBytes = 1;
  static V get(const unsigned char* p) { return int8(load8(p)); }
  static V get(const unsigned char* p, uint64_t n) { return int8(load8(p, n)); }
};

}  // namespace
}  // namespace upg::kernels
