// What stands between the products of many tokens.
#include <cuda_fp16.h>

#include "cuda/embed.cuh"
#include "cuda/prompt.h"

namespace upg::cuda {
namespace {

constexpr unsigned kOpThreads = 512;

__global__ void embed_kernel(TrellisMatrix w, const int32_t* tokens, float* x) {
  embed_row(w, tokens[blockIdx.x], threadIdx.x, blockDim.x, x + static_cast<uint64_t>(blockIdx.x) * w.cols);
}

__device__ float reduce_block(float x, bool maximum, float* shared) {
  x = maximum ? warp_max(x) : warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  x = threadIdx.x % 32 < kOpThreads / 32 ? shared[threadIdx.x % 32] : 0.0f;
  return maximum ? warp_max(x) : warp_sum(x);
}

// A block a token. The same integers and scales as for one token (product.cuh), then as halves.
__global__ void __launch_bounds__(kOpThreads)
    prepare_kernel(Input input, const float* x, uint64_t stride, const float* norm, float epsilon, uint32_t cols,
                   HalfTokens out, float* plain) {
  extern __shared__ float values[];  // [width]
  __shared__ float reduce[32];
  const float* from = x + blockIdx.x * stride;
  float power = 0;
  for (uint32_t c = threadIdx.x; c < out.width; c += kOpThreads) {
    float value = 0;
    if (c < cols) value = input == Input::kSwiglu ? silu(from[c]) * from[cols + c] : from[c];
    values[c] = value;
    power += value * value;
  }
  float inverse_size = 1;
  if (input == Input::kNorm) {
    power = reduce_block(power, false, reduce);
    inverse_size = __frsqrt_rn(power / static_cast<float>(cols) + epsilon);
  }
  __syncthreads();
  float largest_scale = 0;
  for (uint32_t c = threadIdx.x; c < out.width; c += kOpThreads) {  // a warp a block of 32
    float value = values[c];
    if (input == Input::kNorm) value *= c < cols ? inverse_size * norm[c] : 0.0f;
    if (plain != nullptr && c < cols) plain[static_cast<uint64_t>(blockIdx.x) * cols + c] = value;
    const float largest = warp_max(fabsf(value));
    float rounded = 0;
    if (largest >= 0x1p-100f) {
      const uint32_t bits = (__float_as_uint(__fdiv_rn(largest, 127.0f)) + 0x7fffffu) & 0x7f800000u;
      const float scale = __uint_as_float(bits);
      rounded = static_cast<float>(__float2int_rn(value * __uint_as_float(0x7f000000u - bits))) * scale;
      largest_scale = fmaxf(largest_scale, scale);
    }
    values[c] = rounded;
  }
  largest_scale = reduce_block(largest_scale, true, reduce);
  const float inverse = largest_scale > 0 ? __uint_as_float(0x7f000000u - __float_as_uint(largest_scale)) : 0.0f;
  if (threadIdx.x == 0) out.scales[blockIdx.x] = largest_scale;
  __syncthreads();
  auto* halves = static_cast<__half*>(out.values) + static_cast<uint64_t>(blockIdx.x) * out.width;
  for (uint32_t c = threadIdx.x; c < out.width; c += kOpThreads)
    halves[(c & ~31u) + place_of_column(c % 32)] = __float2half_rn(values[c] * inverse);
}

constexpr unsigned kHeadsOfBlock = 4, kThreadsOfHead = 64;

// A block a token and some heads of queries, keys or values; a thread a pair of elements.
__global__ void __launch_bounds__(kHeadsOfBlock* kThreadsOfHead)
    store_kernel(Stage s, float* qkv, uint32_t width, uint32_t position) {
  __shared__ float copies[kHeadsOfBlock][kMaxHeadDim];  // store_vector() leaves rounded values there
  const uint32_t token = blockIdx.x, head = blockIdx.y * kHeadsOfBlock + threadIdx.y;
  const uint32_t d = s.head_dim, half = s.rotary_dim / 2;
  float* x = qkv + static_cast<uint64_t>(token) * width + static_cast<uint64_t>(head) * d;
  const bool inside = head < s.heads + 2 * s.kv_heads;
  if (s.bias != nullptr) {
    for (uint32_t i = threadIdx.x; inside && i < d; i += kThreadsOfHead) x[i] += s.bias[head * d + i];
    __syncthreads();
  }
  if (s.query_norm != nullptr) {
    const float* norm = head < s.heads ? s.query_norm : s.key_norm;
    float sum = 0;  // both warps of a head add up all of it
    for (uint32_t i = threadIdx.x % 32; inside && i < d; i += 32) sum = fmaf(x[i], x[i], sum);
    const float scale = 1 / sqrtf(warp_sum(sum) / static_cast<float>(d) + s.epsilon);
    __syncthreads();
    for (uint32_t i = threadIdx.x; head < s.heads + s.kv_heads && i < d; i += kThreadsOfHead) x[i] *= scale * norm[i];
    __syncthreads();
  }
  if (head < s.heads + s.kv_heads) {
    const float* angles = s.angles + static_cast<uint64_t>(position + token) * s.rotary_dim;
    for (uint32_t i = threadIdx.x; i < half; i += kThreadsOfHead) {
      const float c = angles[i], sine = angles[half + i], a = x[i], b = x[half + i];
      x[i] = a * c - b * sine;
      x[half + i] = b * c + a * sine;
    }
  }
  __syncthreads();
  if (head < s.heads || head >= s.heads + 2 * s.kv_heads || threadIdx.x >= 32) return;
  const bool is_value = head >= s.heads + s.kv_heads;
  const uint64_t vector = static_cast<uint64_t>((head - s.heads) % s.kv_heads) * s.capacity + position + token;
  for (uint32_t i = threadIdx.x; i < d; i += 32) copies[threadIdx.y][i] = x[i];
  __syncwarp();
  store_vector(s, is_value ? s.values : s.keys, is_value ? s.value_scales : s.key_scales, vector, copies[threadIdx.y]);
}

// A thread a row and token.
__global__ void residual_kernel(TrellisMatrix w, const float* x, uint32_t n, float* y, uint64_t stride) {
  const uint32_t row = blockIdx.x, token = blockIdx.y * blockDim.x + threadIdx.x;
  if (token >= n) return;
  const float* from = x + static_cast<uint64_t>(token) * w.cols;
  uint32_t column = 0;
  float sum = 0;
  for (uint32_t k = w.residual_row_pointers[row]; k < w.residual_row_pointers[row + 1]; ++k) {
    column += w.residual_deltas[k];
    const int value = w.residual_values[k];
    if (value != -128) sum += static_cast<float>(value) * from[column];
  }
  y[token * stride + row] += sum * w.residual_scales[row];
}

}  // namespace

cudaError_t add_residual_tokens(const TrellisMatrix& w, const float* x, uint32_t n, float* y, uint64_t stride,
                                cudaStream_t stream) {
  residual_kernel<<<dim3(w.rows, (n + 63) / 64), 64, 0, stream>>>(w, x, n, y, stride);
  return cudaGetLastError();
}

cudaError_t embed_tokens(const TrellisMatrix& w, const int32_t* tokens, uint32_t n, float* x, cudaStream_t stream) {
  embed_kernel<<<n, 128, 0, stream>>>(w, tokens, x);
  return cudaGetLastError();
}

cudaError_t prepare_tokens(Input input, const float* x, uint64_t stride, const float* norm, float epsilon,
                           uint32_t cols, uint32_t n, HalfTokens out, float* plain, cudaStream_t stream) {
  const uint32_t bytes = 4 * out.width;
  if (bytes > 48 << 10) {
    const cudaError_t status =
        cudaFuncSetAttribute(prepare_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (status != cudaSuccess) return status;
  }
  prepare_kernel<<<n, kOpThreads, bytes, stream>>>(input, x, stride, norm, epsilon, cols, out, plain);
  return cudaGetLastError();
}

cudaError_t store_tokens(const Stage& attend, float* qkv, uint32_t width, uint32_t n, uint32_t position,
                         cudaStream_t stream) {
  const uint32_t heads = attend.heads + 2 * attend.kv_heads;
  store_kernel<<<dim3(n, (heads + kHeadsOfBlock - 1) / kHeadsOfBlock), dim3(kThreadsOfHead, kHeadsOfBlock), 0,
                 stream>>>(attend, qkv, width, position);
  return cudaGetLastError();
}

}  // namespace upg::cuda
