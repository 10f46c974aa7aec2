// Many tokens at once: tiles of weights are decoded to half precision in registers and multiplied with all tokens by
// the tensor cores. Activations are the same int8 values as for one token, which halves hold exactly once a power of
// two is taken out of each token; levels times steps are rounded to 11 bits.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/program.h"

namespace upg::cuda {

/// A stream, and whether kernels may start before the one before them ends (compute capability 9.0 on).
struct Queue {
  cudaStream_t stream;
  bool chained;
};

constexpr uint32_t kFewTokens = 64;  // most that are multiplied as few

/// Where the eight columns from `column` on, a multiple of 8, are in a token's row. Few tokens come to shared memory as
/// they are, and what lanes then read together must lie together: their parts of eight have an order within a step.
UPG_HOST_DEVICE constexpr uint32_t place_of_columns(uint32_t column, bool few) {
  const uint32_t part = column / 8 % 32;
  return few ? column / 256 * 256 + 8 * (part / 4 % 2 * 16 + part % 4 * 4 + part / 8) : column;
}

/// Tokens as they enter a product.
struct HalfTokens {
  /// f16 [n_tokens rounded up to 256][256 steps], places as in place_of_column() and place_of_columns()
  void* values;
  float* scales;   // [n_tokens]: powers of two
  uint32_t width;  // 256 steps
  /// Where not 0, values are [steps][32 parts][so many tokens][8] instead: columns as in column_of_part().
  uint32_t together;
};
/// Part `part` of a step has this column, the fourth after it, the same two of the block 64 columns on, and so on: four
/// columns of each of four blocks are two parts, which a product of 16 terms takes.
UPG_HOST_DEVICE constexpr uint32_t column_of_part(uint32_t part) {
  return part / 16 * 32 + part / 4 % 4 * 8 + part % 4;
}

/// A matrix [n, ...] of tokens in parts: element (t, c) is the sum of data[i part_stride + t row_stride + c] over i,
/// in order. Strides and what is read at a time are multiples of 4.
struct RowParts {
  float* data;
  uint32_t count;
  uint64_t part_stride, row_stride;
};

/// Where a run of tokens has its keys and values, for all layers.
struct CachePlace {
  uint8_t *keys, *values;            // [layers][kv_heads][capacity][head_dim], f16 or int8
  float *key_scales, *value_scales;  // [layers][kv_heads][capacity], int8 only
  const float* angles;               // [capacity][rotary_dim]: cosines, then sines
  uint32_t capacity;
};

/// A token of a pass.
struct TokenRow {
  int32_t token;
  uint32_t place, position;
};

/// The stage of attention with the cache of `layer` at that place.
UPG_HOST_DEVICE inline Stage at_place(Stage s, const CachePlace& place, uint32_t layer) {
  const uint64_t vectors = static_cast<uint64_t>(layer) * s.kv_heads * place.capacity;
  const uint64_t bytes = vectors * s.head_dim * (s.int8_cache ? 1 : 2);
  s.keys = place.keys + bytes;
  s.values = place.values + bytes;
  s.key_scales = place.key_scales + vectors;
  s.value_scales = place.value_scales + vectors;
  s.angles = place.angles;
  s.capacity = place.capacity;
  return s;
}

/// x[t] = row rows[t].token of w.
cudaError_t embed_tokens(const TrellisMatrix& w, const TokenRow* rows, uint32_t n, float* x, Queue queue);

/// Norms or activates x and quantises it. kNorm takes stream [n, cols], to which x is added first; x may have no parts.
/// kSwiglu takes two vectors of `cols` from each row, kPairedSwiglu eights of both by turns. `plain` [n, cols] receives
/// what is quantised, unless null.
cudaError_t prepare_tokens(Input input, RowParts x, float* stream, const float* norm, float epsilon, uint32_t cols,
                           uint32_t n, HalfTokens out, float* plain, Queue queue);

/// y[t][c] = x[t][c], or += it: y [n, stride], c < width.
cudaError_t add_parts(RowParts x, uint32_t width, uint32_t n, float* y, uint64_t stride, bool add, Queue queue);

/// What a product of many tokens may use.
struct GemmResources {
  uint32_t shared_limit;  // bytes of shared memory a block
  bool wide;              // the GPU has Hopper's warpgroup instructions, and so has this build
  uint32_t multiprocessors;
  float* parts;          // [part_floats]
  uint64_t part_floats;  // the largest gemm_part_floats() of the matrices
  float* scratch;        // [few_scratch_floats()]
};
uint64_t few_scratch_floats(uint32_t multiprocessors);
/// HalfTokens::together for a product of n tokens.
uint32_t tokens_together(const TrellisMatrix& w, uint32_t n, const GemmResources& resources);
/// What products of the matrix may need, the few tokens up to `few`; with less, those take longer.
uint64_t gemm_part_floats(const TrellisMatrix& w, uint32_t few, uint32_t multiprocessors);

/// W x[t], which `where` tells how to read until the next product: in y [n, stride] or in resources.parts.
cudaError_t multiply_tokens(const TrellisMatrix& w, HalfTokens x, uint32_t n, float* y, uint64_t stride,
                            const GemmResources& resources, RowParts* where, Queue queue);
/// Whether a block may have the shared memory that this needs.
bool can_multiply_tokens(uint32_t shared_limit);

/// y[t] += R x[t] for the residual R of w: x [n, cols], y [n, stride].
cudaError_t add_residual_tokens(const TrellisMatrix& w, const float* x, uint32_t n, float* y, uint64_t stride,
                                Queue queue);

/// Of tokens [begin, begin + n): turns queries, which go to queries [begin + n, heads * head_dim], and keys; puts keys
/// and values into their caches. `constants` is the layer's stage of any run, places[rows[t].place] where token t's run
/// has its cache.
cudaError_t store_tokens(const Stage& constants, RowParts qkv, const TokenRow* rows, const CachePlace* places,
                         uint32_t layer, uint32_t begin, uint32_t n, float* queries, Queue queue);

/// Causal attention of n tokens of one run, at `position` and on, over the cache of `attend`. Each head's result takes
/// the place of its query: x [n, heads * head_dim].
cudaError_t attend_run(const Stage& attend, uint32_t n, uint32_t position, float* x, Queue queue);

/// What attend_singles() leaves between its launches.
uint64_t attend_partial_floats(uint32_t head_dim, uint32_t multiprocessors);
/// The same for the first n tokens, of a run each, from what the product left, and with what store_tokens() does:
/// `longest` is the most positions of one; partial [attend_partial_floats()], x [n, heads * head_dim].
cudaError_t attend_singles(const Stage& constants, RowParts qkv, const TokenRow* rows, const CachePlace* places,
                           uint32_t layer, uint32_t n, uint32_t longest, uint32_t multiprocessors, float* partial,
                           float* x, Queue queue);

}  // namespace upg::cuda
