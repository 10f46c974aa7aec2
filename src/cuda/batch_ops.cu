// What stands between the products of many tokens.
#include "cuda/attend.cuh"
#include "cuda/batch.h"
#include "cuda/embed.cuh"
#include "cuda/launch.cuh"
#include "cuda/row_parts.cuh"

namespace upg::cuda {
namespace {

__global__ void embed_kernel(TrellisMatrix w, const TokenRow* rows, float* x) {
  embed_row(w, rows[blockIdx.x].token, blockIdx.y * blockDim.x + threadIdx.x, gridDim.y * blockDim.x,
            x + static_cast<uint64_t>(blockIdx.x) * w.cols);
}

constexpr unsigned kHeadsOfBlock = 4, kThreadsOfHead = 64;

// A block a token and some heads of queries, keys or values, two warps each.
__global__ void __launch_bounds__(kHeadsOfBlock* kThreadsOfHead)
    store_kernel(Stage constants, RowParts qkv, const TokenRow* rows, const CachePlace* places, uint32_t layer,
                 uint32_t first_token, float* queries) {
  __shared__ float heads_of_block[kHeadsOfBlock][kMaxHeadDim];
  wait_for_kernel_before();
  let_next_kernel_start();
  const uint32_t token = first_token + blockIdx.x, head = blockIdx.y * kHeadsOfBlock + threadIdx.y;
  const TokenRow where = rows[token];
  const Stage s = at_place(constants, places[where.place], layer);
  const uint32_t d = s.head_dim, half = s.rotary_dim / 2;
  float* x = heads_of_block[threadIdx.y];
  const bool inside = head < s.heads + 2 * s.kv_heads, turns = head < s.heads + s.kv_heads;
  for (uint32_t i = 4 * threadIdx.x; inside && i < d; i += 4 * kThreadsOfHead) {
    float4 v = sum_at(qkv, token, head * d + i);
    if (s.bias != nullptr) v = sum_of(v, load4(s.bias + head * d + i, true));
    *reinterpret_cast<float4*>(x + i) = v;
  }
  __syncthreads();
  if (s.query_norm != nullptr) {
    const float* norm = head < s.heads ? s.query_norm : s.key_norm;
    float sum = 0;  // both warps of a head add up all of it
    for (uint32_t i = threadIdx.x % 32; inside && i < d; i += 32) sum = fmaf(x[i], x[i], sum);
    const float scale = 1 / sqrtf(warp_sum(sum) / static_cast<float>(d) + s.epsilon);
    __syncthreads();
    for (uint32_t i = threadIdx.x; turns && i < d; i += kThreadsOfHead) x[i] *= scale * norm[i];
    __syncthreads();
  }
  if (turns) {
    const float* angles = s.angles + static_cast<uint64_t>(where.position) * s.rotary_dim;
    for (uint32_t i = threadIdx.x; i < half; i += kThreadsOfHead) {
      const float c = angles[i], sine = angles[half + i], a = x[i], b = x[half + i];
      x[i] = a * c - b * sine;
      x[half + i] = b * c + a * sine;
    }
  }
  __syncthreads();
  if (head < s.heads) {
    for (uint32_t i = threadIdx.x; i < d; i += kThreadsOfHead)
      queries[(static_cast<uint64_t>(token) * s.heads + head) * d + i] = x[i];
    return;
  }
  if (!inside || threadIdx.x >= 32) return;
  const bool is_value = !turns;
  const uint64_t vector = static_cast<uint64_t>((head - s.heads) % s.kv_heads) * s.capacity + where.position;
  LaneDims v = LaneDims::of(d, [&](uint32_t i) { return x[i]; });
  store_vector(s, is_value ? s.values : s.keys, is_value ? s.value_scales : s.key_scales, vector, v);
}

// y (+)= the sum of the parts, in their order.
__global__ void add_kernel(RowParts x, uint32_t width, float* y, uint64_t stride, bool add) {
  const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x, token = blockIdx.y;
  wait_for_kernel_before();
  let_next_kernel_start();
  if (c >= width) return;
  const float* from = x.data + token * x.row_stride + c;
  float sum = 0;
  for (uint32_t i = 0; i < x.count; ++i) sum += from[i * x.part_stride];
  float* to = y + token * stride + c;
  *to = add ? *to + sum : sum;
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
                                Queue queue) {
  residual_kernel<<<dim3(w.rows, (n + 63) / 64), 64, 0, queue.stream>>>(w, x, n, y, stride);
  return cudaGetLastError();
}

cudaError_t embed_tokens(const TrellisMatrix& w, const TokenRow* rows, uint32_t n, float* x, Queue queue) {
  embed_kernel<<<dim3(n, 4), 128, 0, queue.stream>>>(w, rows, x);
  return cudaGetLastError();
}

cudaError_t store_tokens(const Stage& constants, RowParts qkv, const TokenRow* rows, const CachePlace* places,
                         uint32_t layer, uint32_t begin, uint32_t n, float* queries, Queue queue) {
  const uint32_t heads = constants.heads + 2 * constants.kv_heads;
  return chain(queue, store_kernel, dim3(n, (heads + kHeadsOfBlock - 1) / kHeadsOfBlock),
               dim3(kThreadsOfHead, kHeadsOfBlock), 0, 1, constants, qkv, rows, places, layer, begin, queries);
}

cudaError_t add_parts(RowParts x, uint32_t width, uint32_t n, float* y, uint64_t stride, bool add, Queue queue) {
  return chain(queue, add_kernel, dim3((width + 255) / 256, n), dim3(256), 0, 1, x, width, y, stride, add);
}

}  // namespace upg::cuda
