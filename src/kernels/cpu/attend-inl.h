// Attention of the query heads that share one head of keys and values: each key and value is read once for all of them.
// Include after vec_<isa>-inl.h and expand UPG_ATTEND_KERNELS once.
#pragma once

#include "kernels/args.h"
#include "kernels/cpu/element-inl.h"
#include "kernels/cpu/exp-inl.h"

namespace upg::kernels {
namespace {

struct Unscaled {
  static float scale(const float*, uint64_t) { return 1.0f; }
};
struct Scaled {
  static float scale(const float* scales, uint64_t position) { return scales[position]; }
};
struct F32Cache : F32Element, Unscaled {};
struct F16Cache : F16Element, Unscaled {};
struct Int8Cache : Int8Element, Scaled {};

// Scores of kHeads heads, from head g on, at every position.
template <typename Cache, unsigned kHeads>
inline void score_heads(const AttendArgs& args, uint64_t g) {
  const auto* k = static_cast<const unsigned char*>(args.k);
  const float* q = args.q + g * args.q_stride;
  for (uint64_t p = 0; p < args.n_positions; ++p) {
    V acc[kHeads];
    for (unsigned h = 0; h < kHeads; ++h) acc[h] = zero();
    const unsigned char* key = k + p * args.head_dim * Cache::kBytes;
    uint64_t i = 0;
    for (; i + kV <= args.head_dim; i += kV) {
      const V x = Cache::get(key + i * Cache::kBytes);
      for (unsigned h = 0; h < kHeads; ++h) acc[h] = fma(load(q + h * args.q_stride + i), x, acc[h]);
    }
    if (const uint64_t n = args.head_dim - i; n) {
      const V x = Cache::get(key + i * Cache::kBytes, n);
      for (unsigned h = 0; h < kHeads; ++h) acc[h] = fma(load(q + h * args.q_stride + i, n), x, acc[h]);
    }
    const float scale = args.scale * Cache::scale(args.k_scale, p);
    for (unsigned h = 0; h < kHeads; ++h) args.scores[(g + h) * args.n_positions + p] = sum(acc[h]) * scale;
  }
}

// Scores to probabilities, in place.
inline void softmax(float* scores, uint64_t n) {
  V top = set1(scores[0]);
  uint64_t i = 0;
  for (; i + kV <= n; i += kV) top = max(top, load(scores + i));
  float m = largest(top);
  for (; i < n; ++i) m = scores[i] > m ? scores[i] : m;
  const V shift = set1(m);
  V total = zero();
  for (i = 0; i + kV <= n; i += kV) {
    const V e = exp(sub(load(scores + i), shift));
    store(scores + i, e);
    total = add(total, e);
  }
  float rest = 0;
  if (i < n) {
    float last[kV];
    store(last, exp(sub(load(scores + i, n - i), shift)));
    for (uint64_t j = 0; i + j < n; ++j) rest += scores[i + j] = last[j];
  }
  const V inverse = set1(1.0f / (sum(total) + rest));
  for (i = 0; i + kV <= n; i += kV) store(scores + i, mul(load(scores + i), inverse));
  if (i < n) store(scores + i, mul(load(scores + i, n - i), inverse), n - i);
}

// Elements [i, i + kVectors * kV) of the weighted sum of values (n of the last vector where n > 0), for kHeads heads.
template <typename Cache, unsigned kHeads, unsigned kVectors>
inline void weigh_values(const AttendArgs& args, uint64_t g, uint64_t i, uint64_t n) {
  V acc[kHeads][kVectors];
  for (unsigned h = 0; h < kHeads; ++h)
    for (unsigned v = 0; v < kVectors; ++v) acc[h][v] = zero();
  const auto* value = static_cast<const unsigned char*>(args.v) + i * Cache::kBytes;
  for (uint64_t p = 0; p < args.n_positions; ++p, value += args.head_dim * Cache::kBytes) {
    const float scale = Cache::scale(args.v_scale, p);
    V x[kVectors];
    for (unsigned v = 0; v < kVectors; ++v)
      x[v] = n ? Cache::get(value + v * kV * Cache::kBytes, n) : Cache::get(value + v * kV * Cache::kBytes);
    for (unsigned h = 0; h < kHeads; ++h) {
      const V weight = set1(args.scores[(g + h) * args.n_positions + p] * scale);
      for (unsigned v = 0; v < kVectors; ++v) acc[h][v] = fma(weight, x[v], acc[h][v]);
    }
  }
  for (unsigned h = 0; h < kHeads; ++h) {
    float* out = args.out + (g + h) * args.q_stride + i;
    for (unsigned v = 0; v < kVectors; ++v) {
      if (n) {
        store(out + v * kV, acc[h][v], n);
      } else {
        store(out + v * kV, acc[h][v]);
      }
    }
  }
}

template <typename Cache, unsigned kHeads>
inline void attend_heads(const AttendArgs& args, uint64_t g) {
  score_heads<Cache, kHeads>(args, g);
  for (unsigned h = 0; h < kHeads; ++h) softmax(args.scores + (g + h) * args.n_positions, args.n_positions);
  uint64_t i = 0;
  for (; i + 2 * kV <= args.head_dim; i += 2 * kV) weigh_values<Cache, kHeads, 2>(args, g, i, 0);
  for (; i + kV <= args.head_dim; i += kV) weigh_values<Cache, kHeads, 1>(args, g, i, 0);
  if (i < args.head_dim) weigh_values<Cache, kHeads, 1>(args, g, i, args.head_dim - i);
}

template <typename Cache>
inline void attend(const AttendArgs& args) {
  uint64_t g = 0;
  for (; g + 4 <= args.group; g += 4) attend_heads<Cache, 4>(args, g);
  for (; g < args.group; ++g) attend_heads<Cache, 1>(args, g);
}

}  // namespace
}  // namespace upg::kernels

#define UPG_ATTEND_KERNELS(isa)                                                         \
  namespace upg::kernels {                                                              \
  void attend_f32__##isa(const AttendArgs& args) noexcept { attend<F32Cache>(args); }   \
  void attend_f16__##isa(const AttendArgs& args) noexcept { attend<F16Cache>(args); }   \
  void attend_int8__##isa(const AttendArgs& args) noexcept { attend<Int8Cache>(args); } \
  }
