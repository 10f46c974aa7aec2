// Many tokens at once: tiles of weights are decoded to half precision in registers and multiplied with all tokens by
// the tensor cores. Activations are the same int8 values as for one token, which halves hold exactly once a power of
// two is taken out of each token; levels times steps are rounded to 11 bits.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/program.h"

namespace upg::cuda {

/// Tokens as they enter a product.
struct HalfTokens {
  void* values;    // f16 [n_tokens rounded up to 256][256 steps], places as in place_of_column()
  float* scales;   // [n_tokens]: powers of two
  uint32_t width;  // 256 steps
};

/// x[t] = row tokens[t] of w.
cudaError_t embed_tokens(const TrellisMatrix& w, const int32_t* tokens, uint32_t n, float* x, cudaStream_t stream);

/// Norms or activates x [n, stride] and quantises it. kSwiglu takes two vectors of `cols` from each row. `plain`
/// [n, cols] receives what is quantised, unless null.
cudaError_t prepare_tokens(Input input, const float* x, uint64_t stride, const float* norm, float epsilon,
                           uint32_t cols, uint32_t n, HalfTokens out, float* plain, cudaStream_t stream);

/// What a product of many tokens may use.
struct GemmResources {
  uint32_t shared_limit;  // bytes of shared memory a block
  bool wide;              // the GPU has Hopper's warpgroup instructions, and so has this build
  uint32_t multiprocessors;
  float* parts;  // [gemm_part_floats()]
};
uint64_t gemm_part_floats(uint32_t multiprocessors);

/// y[t][r] = W x[t], or += it: y [n, stride].
cudaError_t multiply_tokens(const TrellisMatrix& w, HalfTokens x, uint32_t n, float* y, uint64_t stride, bool add,
                            const GemmResources& resources, cudaStream_t stream);
/// Whether a block may have the shared memory that this needs.
bool can_multiply_tokens(uint32_t shared_limit);

/// y[t] += R x[t] for the residual R of w: x [n, cols], y [n, stride].
cudaError_t add_residual_tokens(const TrellisMatrix& w, const float* x, uint32_t n, float* y, uint64_t stride,
                                cudaStream_t stream);

/// Turns queries and keys of qkv [n, width] in place, puts keys and values into the cache of `attend` from `position`
/// on.
cudaError_t store_tokens(const Stage& attend, float* qkv, uint32_t width, uint32_t n, uint32_t position,
                         cudaStream_t stream);

/// Causal attention of n tokens at `position` and on, over the cache: out [n, heads * head_dim].
cudaError_t attend_tokens(const Stage& attend, const float* qkv, uint32_t width, uint32_t n, uint32_t position,
                          float* out, cudaStream_t stream);

}  // namespace upg::cuda
