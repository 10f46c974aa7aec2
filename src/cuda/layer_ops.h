// What stands between the products of a layer, in float, for many tokens of one sequence from its beginning: for
// compression, which needs the numbers as the CPU has them.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

namespace upg::cuda {

/// RMSNorm of `heads` vectors of `width` a token: x, y [n_tokens][heads][width], tokens x_stride and y_stride floats
/// apart; y may be x.
cudaError_t norm_rows(const float* x, uint64_t x_stride, const float* weight, float epsilon, uint32_t n_tokens,
                      uint32_t heads, uint32_t width, float* y, uint64_t y_stride, cudaStream_t stream);

/// y[t][i] += bias[i].
cudaError_t add_bias(float* y, uint64_t stride, const float* bias, uint32_t n_tokens, uint32_t width,
                     cudaStream_t stream);

/// Turns `heads` heads of each token: angles [n_tokens][rotary_dim], cosines first. x [n_tokens, stride].
cudaError_t turn_heads(float* x, uint64_t stride, const float* angles, uint32_t rotary_dim, bool interleaved,
                       uint32_t n_tokens, uint32_t heads, uint32_t head_dim, cudaStream_t stream);

struct CausalShape {
  uint32_t heads, kv_heads, head_dim, window;  // head_dim up to 256; window 0: all positions
  float scale, softcap;
};
/// out [n_tokens, heads * head_dim] from qkv [n_tokens, (heads + 2 kv_heads) * head_dim].
cudaError_t attend_causally(const CausalShape& shape, const float* qkv, uint32_t n_tokens, float* out,
                            cudaStream_t stream);

enum class Gate { kSilu, kGelu, kGeluTanh };
/// y[t][i] = f(gate_up[t][i]) gate_up[t][width + i].
cudaError_t gate(Gate f, const float* gate_up, uint32_t n_tokens, uint32_t width, float* y, cudaStream_t stream);

}  // namespace upg::cuda
