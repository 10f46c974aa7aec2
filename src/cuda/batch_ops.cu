// What stands between the products of many tokens.
#include <cuda_fp16.h>

#include "cuda/attend.cuh"
#include "cuda/batch.h"
#include "cuda/embed.cuh"
#include "cuda/launch.cuh"

namespace upg::cuda {
namespace {

constexpr unsigned kOpThreads = 512;

__global__ void embed_kernel(TrellisMatrix w, const TokenRow* rows, float* x) {
  embed_row(w, rows[blockIdx.x].token, threadIdx.x, blockDim.x, x + static_cast<uint64_t>(blockIdx.x) * w.cols);
}

__device__ float reduce_block(float x, bool maximum, float* shared) {
  x = maximum ? warp_max(x) : warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  x = threadIdx.x % 32 < kOpThreads / 32 ? shared[threadIdx.x % 32] : 0.0f;
  return maximum ? warp_max(x) : warp_sum(x);
}

__device__ __forceinline__ float4 sum_at(const RowParts& x, uint32_t row, uint32_t c) {
  const float* from = x.data + row * x.row_stride + c;
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 4
  for (uint32_t i = 0; i < x.count; ++i) sum = sum_of(sum, *reinterpret_cast<const float4*>(from + i * x.part_stride));
  return sum;
}

// The same over the blocks of a cluster, in their order; `parts` is how many they are.
__device__ float reduce_cluster(float x, bool maximum, uint32_t parts, float* shared) {
  x = reduce_block(x, maximum, shared);
#if __CUDA_ARCH__ >= 900
  if (parts == 1) return x;
  __shared__ float of_block[2];  // a sum, then a maximum
  float* mine = of_block + maximum;
  if (threadIdx.x == 0) *mine = x;
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
  x = 0;
  for (uint32_t rank = 0; rank < parts; ++rank) {
    uint32_t address;
    float other;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(address)
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(mine))), "r"(rank));
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(other) : "r"(address) : "memory");
    x = maximum ? fmaxf(x, other) : x + other;
  }
#endif
  return x;
}

// A block, or a cluster of `parts` blocks with `part_columns` each, a token. The same integers and scales as for one
// token (product.cuh), then as halves.
__global__ void __launch_bounds__(kOpThreads)
    prepare_kernel(Input input, RowParts x, float* stream, const float* norm, float epsilon, uint32_t cols,
                   uint32_t part_columns, uint32_t parts, bool few, HalfTokens out, float* plain) {
  extern __shared__ __align__(16) float values[];  // [part_columns]
  __shared__ float reduce[32];
  const uint32_t row = blockIdx.x / parts, first = blockIdx.x % parts * part_columns;
  const uint32_t end = min(first + part_columns, out.width);
  wait_for_kernel_before();
  let_next_kernel_start();
  // Columns c to c + 3, c being a multiple of 4; eight lanes have a block of 32. All lanes of a warp come here
  // together.
  float largest_scale = 0;
  const auto quantize = [&](uint32_t c, float4 v) {
    if (plain != nullptr && c < cols) *reinterpret_cast<float4*>(plain + static_cast<uint64_t>(row) * cols + c) = v;
    float largest = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
#pragma unroll
    for (int d = 4; d > 0; d /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, d));
    const Step32 step = step_of(largest);
    largest_scale = fmaxf(largest_scale, step.scale);
    const auto rounded = [&](float value) { return rintf(value * step.inverse) * step.scale; };
    *reinterpret_cast<float4*>(values + c - first) = {rounded(v.x), rounded(v.y), rounded(v.z), rounded(v.w)};
  };
  float power = 0;
  for (uint32_t c = first + 4 * threadIdx.x; c < end; c += 4 * kOpThreads) {
    float4 v = make_float4(0, 0, 0, 0);
    if (c < cols) {
      v = sum_at(x, row, c);
      if (input == Input::kNorm) {
        auto* kept = reinterpret_cast<float4*>(stream + static_cast<uint64_t>(row) * cols + c);
        v = sum_of(*kept, v);
        if (x.count > 0) *kept = v;
      } else if (input == Input::kSwiglu) {
        const float4 up = sum_at(x, row, cols + c);
        v = {silu(v.x) * up.x, silu(v.y) * up.y, silu(v.z) * up.z, silu(v.w) * up.w};
      }
    }
    if (input == Input::kNorm) {
      *reinterpret_cast<float4*>(values + c - first) = v;  // read by this thread alone
      power += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    } else {
      quantize(c, v);
    }
  }
  if (input == Input::kNorm) {
    power = reduce_cluster(power, false, parts, reduce);
    const float inverse_size = __frsqrt_rn(power / static_cast<float>(cols) + epsilon);
    for (uint32_t c = first + 4 * threadIdx.x; c < end; c += 4 * kOpThreads) {
      const float4 v = *reinterpret_cast<const float4*>(values + c - first), w = load4(norm + c, c < cols);
      quantize(
          c, {v.x * inverse_size * w.x, v.y * inverse_size * w.y, v.z * inverse_size * w.z, v.w * inverse_size * w.w});
    }
  }
  largest_scale = reduce_cluster(largest_scale, true, parts, reduce);  // and all values are there
  const float inverse = largest_scale > 0 ? __uint_as_float(0x7f000000u - __float_as_uint(largest_scale)) : 0.0f;
  if (first == 0 && threadIdx.x == 0) out.scales[row] = largest_scale;
  auto* halves = static_cast<__half*>(out.values) + static_cast<uint64_t>(row) * out.width;
  for (uint32_t c = first + 8 * threadIdx.x; c < end; c += 8 * kOpThreads) {
    const auto* from = reinterpret_cast<const float4*>(values + c - first);
    const float4 a = from[0], b = from[1];
    // The order of place_of_column().
    const auto scaled = [&](float low, float high) { return pack(low * inverse, high * inverse); };
    const uint4 words = make_uint4(scaled(a.x, b.x), scaled(a.y, b.y), scaled(a.z, b.z), scaled(a.w, b.w));
    if (out.together == 0) {
      *reinterpret_cast<uint4*>(halves + place_of_columns(c, few)) = words;
      continue;
    }
    auto* step = static_cast<uint32_t*>(out.values) + static_cast<uint64_t>(c / 256) * 128 * out.together;
    const uint32_t of_word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) step[(tile_part(c, i) * out.together + row) * 4 + tile_word(c)] = of_word[i];
  }
#if __CUDA_ARCH__ >= 900
  // Nobody leaves while others still read what it has found.
  if (parts > 1)
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

constexpr unsigned kHeadsOfBlock = 4, kThreadsOfHead = 64;

// A block a token and some heads of queries, keys or values, two warps each.
__global__ void __launch_bounds__(kHeadsOfBlock* kThreadsOfHead)
    store_kernel(Stage constants, RowParts qkv, const TokenRow* rows, const CachePlace* places, uint32_t layer,
                 float* queries) {
  __shared__ float heads_of_block[kHeadsOfBlock][kMaxHeadDim];
  wait_for_kernel_before();
  let_next_kernel_start();
  const uint32_t token = blockIdx.x, head = blockIdx.y * kHeadsOfBlock + threadIdx.y;
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
  embed_kernel<<<n, 128, 0, queue.stream>>>(w, rows, x);
  return cudaGetLastError();
}

cudaError_t prepare_tokens(Input input, RowParts x, float* stream, const float* norm, float epsilon, uint32_t cols,
                           uint32_t n, HalfTokens out, float* plain, Queue queue) {
  // Few tokens are cut into parts, so that many multiprocessors work.
  const uint32_t parts = queue.chained && n <= 128 ? (out.width > 8192 ? 8 : 4) : 1;
  const uint32_t part_columns = ((out.width + parts - 1) / parts + 255) / 256 * 256, bytes = 4 * part_columns;
  if (bytes > 48 << 10) {
    const cudaError_t status =
        cudaFuncSetAttribute(prepare_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (status != cudaSuccess) return status;
  }
  return chain(queue, prepare_kernel, dim3(n * parts), dim3(kOpThreads), bytes, parts, input, x, stream, norm, epsilon,
               cols, part_columns, parts, n <= kFewTokens, out, plain);
}

cudaError_t store_tokens(const Stage& constants, RowParts qkv, const TokenRow* rows, const CachePlace* places,
                         uint32_t layer, uint32_t n, float* queries, Queue queue) {
  const uint32_t heads = constants.heads + 2 * constants.kv_heads;
  return chain(queue, store_kernel, dim3(n, (heads + kHeadsOfBlock - 1) / kHeadsOfBlock),
               dim3(kThreadsOfHead, kHeadsOfBlock), 0, 1, constants, qkv, rows, places, layer, queries);
}

cudaError_t add_parts(RowParts x, uint32_t width, uint32_t n, float* y, uint64_t stride, bool add, Queue queue) {
  return chain(queue, add_kernel, dim3((width + 255) / 256, n), dim3(256), 0, 1, x, width, y, stride, add);
}

}  // namespace upg::cuda
