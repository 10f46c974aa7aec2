// Attention of the query heads that share one head of keys and values: each key and value is read once for all of them.
// Include after vec_<isa>-inl.h and expand UPG_ATTEND_KERNELS once.
#pragma once

#include "kernels/args.h"
#include "kernels/cpu/element-inl.h"
#include "kernels/cpu/exp-inl.h"
#include "kernels/cpu/unroll-inl.h"

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

constexpr unsigned kHeadsAtOnce = 4;
constexpr unsigned kPositionsAtOnce = kRegisters >= 32 ? 4 : 1;  // whose products with four heads registers hold
constexpr unsigned kVectorsAtOnce = kRegisters >= 32 ? 4 : 1;
// Values are read in parts that a first-level cache holds, because they are gone through kVectorsAtOnce at a time. One
// strided pass over all of them for each of those reached a quarter of the memory's speed.
constexpr uint64_t kPartPositions = 64;

// Positions [begin, end), whose keys and values lie together; `next` ones are those of the position at `end`, if there
// is one.
struct Run {
  const unsigned char *k, *v, *next_k, *next_v;
  const float *k_scale, *v_scale;
  uint64_t begin, end;
};

inline Run run_at(const AttendArgs& args, uint64_t begin, uint64_t element_bytes) {
  const uint64_t block = (args.first + begin) / args.block_positions, at = (args.first + begin) % args.block_positions;
  const uint64_t left = args.block_positions - at;
  const unsigned char* memory = args.blocks[block];
  Run run;
  run.begin = begin;
  run.end = left < args.n_positions - begin ? begin + left : args.n_positions;
  const unsigned char* next = run.end < args.n_positions ? args.blocks[block + 1] : nullptr;
  run.k = memory + args.k_at + at * args.head_dim * element_bytes;
  run.v = memory + args.v_at + at * args.v_stride * element_bytes;
  run.next_k = next ? next + args.k_at : nullptr;
  run.next_v = next ? next + args.v_at : nullptr;
  run.k_scale = reinterpret_cast<const float*>(memory + args.k_scale_at) + at;
  run.v_scale = reinterpret_cast<const float*>(memory + args.v_scale_at) + at;
  return run;
}

// Asks for `bytes` of memory that will be read soon: both streams are faster than the processor's own prefetchers,
// which stop at the end of a page.
inline void prefetch(const unsigned char* p, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}
constexpr uint64_t kKeysAhead = 8 << 10;  // bytes

// A vector of elements of a key or value, or of floats; where not kWhole, the first n of one.
template <typename Cache, bool kWhole>
inline V element(const unsigned char* p, uint64_t n) {
  if constexpr (kWhole) return Cache::get(p);
  return Cache::get(p, n);
}
template <bool kWhole>
inline V floats(const float* p, uint64_t n) {
  if constexpr (kWhole) return load(p);
  return load(p, n);
}

// Adds elements [i, i + kV) (or to head_dim, where not kWhole) of the products of queries and keys.
template <typename Cache, unsigned kHeads, unsigned kPositions, bool kWhole>
inline void multiply_keys(const AttendArgs& args, const float* q, const unsigned char* k, uint64_t i,
                          V (&acc)[kHeads][kPositions]) {
  const uint64_t n = args.head_dim - i;
  V key[kPositions];
  UPG_UNROLL
  for (unsigned j = 0; j < kPositions; ++j)
    key[j] = element<Cache, kWhole>(k + (j * args.head_dim + i) * Cache::kBytes, n);
  UPG_UNROLL
  for (unsigned h = 0; h < kHeads; ++h) {
    const V x = floats<kWhole>(q + h * args.q_stride + i, n);
    UPG_UNROLL
    for (unsigned j = 0; j < kPositions; ++j) acc[h][j] = fma(x, key[j], acc[h][j]);
  }
}

// Scores of kHeads heads, from head g on, at kPositions positions of a run from p on.
template <typename Cache, unsigned kHeads, unsigned kPositions>
inline void score_positions(const AttendArgs& args, const Run& run, uint64_t g, uint64_t p) {
  const unsigned char* k = run.k + (p - run.begin) * args.head_dim * Cache::kBytes;
  const float* q = args.q + g * args.q_stride;
  V acc[kHeads][kPositions];
  UPG_UNROLL
  for (unsigned h = 0; h < kHeads; ++h) UPG_UNROLL
  for (unsigned j = 0; j < kPositions; ++j) acc[h][j] = zero();
  uint64_t i = 0;
  for (; i + kV <= args.head_dim; i += kV) multiply_keys<Cache, kHeads, kPositions, true>(args, q, k, i, acc);
  if (i < args.head_dim) multiply_keys<Cache, kHeads, kPositions, false>(args, q, k, i, acc);
  UPG_UNROLL
  for (unsigned h = 0; h < kHeads; ++h) {
    float* scores = args.scores + (g + h) * args.n_positions + p;
    float sums[kPositions];
    if constexpr (kPositions == 4) {
      sum4(acc[h], sums);
    } else {
      UPG_UNROLL
      for (unsigned j = 0; j < kPositions; ++j) sums[j] = sum(acc[h][j]);
    }
    UPG_UNROLL
    for (unsigned j = 0; j < kPositions; ++j)
      scores[j] = sums[j] * (args.scale * Cache::scale(run.k_scale, p + j - run.begin));
  }
}

template <typename Cache, unsigned kHeads>
inline void score_run(const AttendArgs& args, const Run& run, uint64_t g) {
  uint64_t p = run.begin;
  const uint64_t vector = args.head_dim * Cache::kBytes, bytes = (run.end - run.begin) * vector;
  for (; p + kPositionsAtOnce <= run.end; p += kPositionsAtOnce) {
    const uint64_t ahead = (p - run.begin) * vector + kKeysAhead;
    if (ahead < bytes)
      prefetch(run.k + ahead, kPositionsAtOnce * vector);
    else if (run.next_k)
      prefetch(run.next_k + (ahead - bytes), kPositionsAtOnce * vector);
    score_positions<Cache, kHeads, kPositionsAtOnce>(args, run, g, p);
  }
  for (; p < run.end; ++p) score_positions<Cache, kHeads, 1>(args, run, g, p);
}

// s := c tanh(s / c), as c (1 - 2 / (e^(2 s / c) + 1)).
inline V capped(V s, V cap, V twice_inverse) {
  const V e = exp(mul(s, twice_inverse));
  return sub(cap, div(add(cap, cap), add(e, set1(1.0f))));
}

inline void cap_scores(float* scores, uint64_t n, float softcap) {
  const V cap = set1(softcap), twice_inverse = set1(2.0f / softcap);
  uint64_t i = 0;
  for (; i + kV <= n; i += kV) store(scores + i, capped(load(scores + i), cap, twice_inverse));
  if (i < n) store(scores + i, capped(load(scores + i, n - i), cap, twice_inverse), n - i);
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

// Adds a run's positions [begin, end) to elements [i, i + kVectors * kV) (or to value_dim, where not kWhole) of the
// weighted sums of values, for kHeads heads; `ahead` are the values that come after these.
template <typename Cache, unsigned kHeads, unsigned kVectors, bool kWhole>
inline void weigh_values(const AttendArgs& args, const Run& run, uint64_t g, uint64_t i, uint64_t begin, uint64_t end,
                         const unsigned char* ahead) {
  static_assert(kWhole || kVectors == 1);
  const uint64_t n = args.value_dim - i;
  float* out = args.out + g * args.out_stride + i;
  V acc[kHeads][kVectors];
  UPG_UNROLL
  for (unsigned h = 0; h < kHeads; ++h) UPG_UNROLL
  for (unsigned v = 0; v < kVectors; ++v)
    acc[h][v] = begin == 0 ? zero() : floats<kWhole>(out + h * args.out_stride + v * kV, n);
  const uint64_t stride = args.v_stride * Cache::kBytes;
  const unsigned char* value = run.v + (begin - run.begin) * stride + i * Cache::kBytes;
  const float* scores = args.scores + g * args.n_positions;
  for (uint64_t p = begin; p < end; ++p, value += stride) {
    if (i == 0 && ahead) prefetch(ahead + (p - begin) * stride, stride);
    const float scale = Cache::scale(run.v_scale, p - run.begin);
    V x[kVectors];
    UPG_UNROLL
    for (unsigned v = 0; v < kVectors; ++v) x[v] = element<Cache, kWhole>(value + v * kV * Cache::kBytes, n);
    UPG_UNROLL
    for (unsigned h = 0; h < kHeads; ++h) {
      const V weight = set1(scores[h * args.n_positions + p] * scale);
      UPG_UNROLL
      for (unsigned v = 0; v < kVectors; ++v) acc[h][v] = fma(weight, x[v], acc[h][v]);
    }
  }
  UPG_UNROLL
  for (unsigned h = 0; h < kHeads; ++h) {
    UPG_UNROLL
    for (unsigned v = 0; v < kVectors; ++v) {
      float* to = out + h * args.out_stride + v * kV;
      if constexpr (kWhole) {
        store(to, acc[h][v]);
      } else {
        store(to, acc[h][v], n);
      }
    }
  }
}

template <typename Cache, unsigned kHeads>
inline void weigh_run(const AttendArgs& args, const Run& run, uint64_t g) {
  for (uint64_t begin = run.begin; begin < run.end; begin += kPartPositions) {
    const bool last = run.end - begin <= kPartPositions;
    const uint64_t end = last ? run.end : begin + kPartPositions;
    const unsigned char* ahead = last ? run.next_v : run.v + (end - run.begin) * args.v_stride * Cache::kBytes;
    uint64_t i = 0;
    for (; i + kVectorsAtOnce * kV <= args.value_dim; i += kVectorsAtOnce * kV)
      weigh_values<Cache, kHeads, kVectorsAtOnce, true>(args, run, g, i, begin, end, ahead);
    for (; i + kV <= args.value_dim; i += kV) weigh_values<Cache, kHeads, 1, true>(args, run, g, i, begin, end, ahead);
    if (i < args.value_dim) weigh_values<Cache, kHeads, 1, false>(args, run, g, i, begin, end, ahead);
  }
}

template <typename Cache, unsigned kHeads>
inline void attend_heads(const AttendArgs& args, uint64_t g) {
  for (uint64_t p = 0; p < args.n_positions;) {
    const Run run = run_at(args, p, Cache::kBytes);
    score_run<Cache, kHeads>(args, run, g);
    p = run.end;
  }
  for (unsigned h = 0; h < kHeads; ++h) {
    float* scores = args.scores + (g + h) * args.n_positions;
    if (args.softcap != 0) cap_scores(scores, args.n_positions, args.softcap);
    softmax(scores, args.n_positions);
  }
  for (uint64_t p = 0; p < args.n_positions;) {
    const Run run = run_at(args, p, Cache::kBytes);
    weigh_run<Cache, kHeads>(args, run, g);
    p = run.end;
  }
}

template <typename Cache>
inline void attend(const AttendArgs& args) {
  uint64_t g = 0;
  for (; g + kHeadsAtOnce <= args.group; g += kHeadsAtOnce) attend_heads<Cache, kHeadsAtOnce>(args, g);
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
