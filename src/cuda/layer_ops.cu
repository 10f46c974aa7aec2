#include <math.h>

#include "cuda/layer_ops.h"
#include "cuda/warp.cuh"

namespace upg::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kDimsOfLane = 8;  // of a head of at most 256

// A block a vector.
__global__ void norm_kernel(const float* x, uint64_t x_stride, const float* weight, float epsilon, uint32_t heads,
                            uint32_t width, float* y, uint64_t y_stride) {
  __shared__ float sums[kThreads / 32];
  const uint64_t t = blockIdx.x / heads, h = blockIdx.x % heads;
  const float* from = x + t * x_stride + h * width;
  float* to = y + t * y_stride + h * width;
  float power = 0;
  for (uint32_t i = threadIdx.x; i < width; i += kThreads) power += from[i] * from[i];
  power = warp_sum(power);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = power;
  __syncthreads();
  power = 0;
  for (float sum : sums) power += sum;
  const float scale = 1 / sqrtf(power / static_cast<float>(width) + epsilon);
  for (uint32_t i = threadIdx.x; i < width; i += kThreads) to[i] = from[i] * scale * weight[i];
}

__global__ void bias_kernel(float* y, uint64_t stride, const float* bias, uint32_t width) {
  const uint32_t i = blockIdx.x * kThreads + threadIdx.x;
  if (i < width) y[blockIdx.y * stride + i] += bias[i];
}

__global__ void turn_kernel(float* x, uint64_t stride, const float* angles, uint32_t rotary_dim, bool interleaved,
                            uint32_t heads, uint32_t head_dim) {
  const uint32_t half = rotary_dim / 2, item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= heads * half) return;
  const uint32_t head = item / half, i = item % half;
  const uint64_t token = blockIdx.y;
  float* at = x + token * stride + head * head_dim;
  float* first = at + (interleaved ? 2 * i : i);
  float* second = first + (interleaved ? 1 : half);
  const float c = angles[token * rotary_dim + i], s = angles[token * rotary_dim + half + i];
  const float a = *first, b = *second;
  *first = a * c - b * s;
  *second = b * c + a * s;
}

// A warp a query; lanes share out the dimensions. Softmax as scores come (Milakov & Gimelshein 2018).
__global__ void __launch_bounds__(kThreads)
    attend_kernel(CausalShape s, const float* qkv, uint32_t n_tokens, float* out) {
  const uint32_t lane = threadIdx.x % 32;
  const uint32_t item = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  if (item >= n_tokens * s.heads) return;
  const uint32_t head = item / n_tokens, query = item % n_tokens, kv = head / (s.heads / s.kv_heads);
  const uint64_t width = uint64_t{s.heads + 2 * s.kv_heads} * s.head_dim;
  const float* keys = qkv + uint64_t{s.heads + kv} * s.head_dim;
  const float* values = keys + uint64_t{s.kv_heads} * s.head_dim;
  float q[kDimsOfLane], acc[kDimsOfLane] = {};
#pragma unroll
  for (unsigned i = 0; i < kDimsOfLane; ++i) {
    const uint32_t d = lane + 32 * i;
    q[i] = d < s.head_dim ? qkv[query * width + head * s.head_dim + d] * s.scale : 0.0f;
  }
  float top = -INFINITY, total = 0;
  const uint32_t first = s.window != 0 && query + 1 > s.window ? query + 1 - s.window : 0;
  for (uint32_t p = first; p <= query; ++p) {
    float score = 0, v[kDimsOfLane];
#pragma unroll
    for (unsigned i = 0; i < kDimsOfLane; ++i) {
      const uint32_t d = lane + 32 * i;
      const bool inside = d < s.head_dim;
      score += inside ? q[i] * keys[p * width + d] : 0.0f;
      v[i] = inside ? values[p * width + d] : 0.0f;
    }
    score = warp_sum(score);
    if (s.softcap != 0) score = s.softcap * tanhf(score / s.softcap);
    const float new_top = fmaxf(top, score), shrink = expf(top - new_top), weight = expf(score - new_top);
    top = new_top;
    total = total * shrink + weight;
#pragma unroll
    for (unsigned i = 0; i < kDimsOfLane; ++i) acc[i] = acc[i] * shrink + weight * v[i];
  }
#pragma unroll
  for (unsigned i = 0; i < kDimsOfLane; ++i) {
    const uint32_t d = lane + 32 * i;
    if (d < s.head_dim) out[(uint64_t{query} * s.heads + head) * s.head_dim + d] = acc[i] / total;
  }
}

__global__ void gate_kernel(Gate f, const float* gate_up, uint32_t width, float* y) {
  const uint32_t i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= width) return;
  const uint64_t t = blockIdx.y;
  const float x = gate_up[t * 2 * width + i];
  float g = 0;
  if (f == Gate::kSilu) {
    g = x / (1 + expf(-x));
  } else if (f == Gate::kGelu) {
    g = 0.5f * x * (1 + erff(x * 0.70710678f));
  } else {
    g = 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
  }
  y[t * width + i] = g * gate_up[t * 2 * width + width + i];
}

unsigned blocks_of(uint64_t n) { return static_cast<unsigned>((n + kThreads - 1) / kThreads); }

}  // namespace

cudaError_t norm_rows(const float* x, uint64_t x_stride, const float* weight, float epsilon, uint32_t n_tokens,
                      uint32_t heads, uint32_t width, float* y, uint64_t y_stride, cudaStream_t stream) {
  norm_kernel<<<n_tokens * heads, kThreads, 0, stream>>>(x, x_stride, weight, epsilon, heads, width, y, y_stride);
  return cudaGetLastError();
}

cudaError_t add_bias(float* y, uint64_t stride, const float* bias, uint32_t n_tokens, uint32_t width,
                     cudaStream_t stream) {
  bias_kernel<<<dim3(blocks_of(width), n_tokens), kThreads, 0, stream>>>(y, stride, bias, width);
  return cudaGetLastError();
}

cudaError_t turn_heads(float* x, uint64_t stride, const float* angles, uint32_t rotary_dim, bool interleaved,
                       uint32_t n_tokens, uint32_t heads, uint32_t head_dim, cudaStream_t stream) {
  if (rotary_dim == 0) return cudaSuccess;
  turn_kernel<<<dim3(blocks_of(uint64_t{heads} * rotary_dim / 2), n_tokens), kThreads, 0, stream>>>(
      x, stride, angles, rotary_dim, interleaved, heads, head_dim);
  return cudaGetLastError();
}

cudaError_t attend_causally(const CausalShape& shape, const float* qkv, uint32_t n_tokens, float* out,
                            cudaStream_t stream) {
  attend_kernel<<<blocks_of(uint64_t{32} * n_tokens * shape.heads), kThreads, 0, stream>>>(shape, qkv, n_tokens, out);
  return cudaGetLastError();
}

cudaError_t gate(Gate f, const float* gate_up, uint32_t n_tokens, uint32_t width, float* y, cudaStream_t stream) {
  gate_kernel<<<dim3(blocks_of(width), n_tokens), kThreads, 0, stream>>>(f, gate_up, width, y);
  return cudaGetLastError();
}

}  // namespace upg::cuda
