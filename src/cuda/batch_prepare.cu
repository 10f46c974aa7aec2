// Tokens on their way into a product: the norm or activation of what the product before left in parts, quantised.
#include <cuda_fp16.h>

#include <algorithm>

#include "cuda/halves.cuh"
#include "cuda/launch.cuh"
#include "cuda/row_parts.cuh"

namespace upg::cuda {
namespace {

constexpr unsigned kMostThreads = 512;  // of a block, two of which have room
constexpr unsigned kMostParts = 8;      // of a token, a block each

// A sum and a maximum over all threads of a cluster of `parts` blocks, in all of them: each warp writes its own to all
// blocks, of_warps [parts][warps]. Of more than one block, cluster_arrive() has been called before.
__device__ __forceinline__ float2 reduce(float sum, float maximum, uint32_t parts, float2* of_warps) {
  const uint32_t warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float2 mine = make_float2(warp_sum(sum), warp_max(maximum));
  if (parts == 1) {
    if (lane == 0) of_warps[warp] = mine;
    __syncthreads();
  }
#if __CUDA_ARCH__ >= 900
  else {
    cluster_wait();  // all blocks have begun
    if (lane < parts) {
      uint32_t address;
      asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                   : "=r"(address)
                   : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(of_warps + blockIdx.x % parts * warps + warp))),
                     "r"(lane));
      asm volatile("st.shared::cluster.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(mine.x), "f"(mine.y) : "memory");
    }
    cluster_arrive();
    cluster_wait();
  }
#endif
  sum = maximum = 0;
  for (uint32_t i = lane; i < parts * warps; i += 32) {
    sum += of_warps[i].x;
    maximum = fmaxf(maximum, of_warps[i].y);
  }
  return make_float2(warp_sum(sum), warp_max(maximum));
}

template <Input kInput>
constexpr bool kGated = kInput == Input::kSwiglu || kInput == Input::kPairedSwiglu;
// Places of four columns each that a thread works on at a time.
template <Input kInput>
constexpr unsigned kPlaces = kGated<kInput> ? 2 : 1;

// A block, or a cluster of `parts` blocks with `part_columns` each, a token. The same integers and scales as for one
// token (prepare.cuh), but for the order of the norm's sum, then as halves.
template <Input kInput>
__global__ void __launch_bounds__(kMostThreads, 2)
    prepare_kernel(RowParts x, float* stream, const float* norm, float epsilon, uint32_t cols, uint32_t part_columns,
                   uint32_t parts, bool few, HalfTokens out, float* plain) {
  extern __shared__ __align__(16) float values[];  // [part_columns]
  __shared__ float2 of_warps[kMostParts * kMostThreads / 32];
  const uint32_t row = blockIdx.x / parts, first = blockIdx.x % parts * part_columns;
  const uint32_t end = min(first + part_columns, out.width);
#if __CUDA_ARCH__ >= 900
  if (parts > 1) cluster_arrive();
#endif
  wait_for_kernel_before();
  let_next_kernel_start();
  // Columns c to c + 3, c being a multiple of 4. All lanes of a warp come here together.
  float power = 0, largest = 0;
  for (uint32_t c = first + 4 * threadIdx.x; c < end; c += 4 * kPlaces<kInput> * blockDim.x) {
    float4 v[kPlaces<kInput>];
    if constexpr (kGated<kInput>) {
      const uint32_t next = c + 4 * blockDim.x, a = c < cols ? c : 0, b = next < min(end, cols) ? next : 0;
      const bool paired = kInput == Input::kPairedSwiglu;
      const uint32_t gate_a = paired ? a + a / 8 * 8 : a, gate_b = paired ? b + b / 8 * 8 : b, up = paired ? 8 : cols;
      const uint32_t columns[4] = {gate_a, gate_b, gate_a + up, gate_b + up};
      float4 both[4];
      sum_parts<4, 2>(x, row, columns, both);
#pragma unroll
      for (unsigned k = 0; k < 2; ++k) {
        const float4 gate = both[k];
        v[k] = product_of({silu(gate.x), silu(gate.y), silu(gate.z), silu(gate.w)}, both[2 + k]);
      }
    } else if (const uint32_t columns[1] = {c < cols ? c : 0}; kInput == Input::kNorm) {
      auto* kept = reinterpret_cast<float4*>(stream + static_cast<uint64_t>(row) * cols + columns[0]);
      const float4 before = *kept, w = load4(norm + columns[0], true);
      sum_parts<1, 8>(x, row, columns, v);
      v[0] = sum_of(before, v[0]);
      if (c < cols) {
        if (x.count > 0) *kept = v[0];
        power += v[0].x * v[0].x + v[0].y * v[0].y + v[0].z * v[0].z + v[0].w * v[0].w;
      }
      v[0] = {v[0].x * w.x, v[0].y * w.y, v[0].z * w.z, v[0].w * w.w};
    } else {
      sum_parts<1, 8>(x, row, columns, v);
    }
#pragma unroll
    for (unsigned k = 0; k < kPlaces<kInput>; ++k) {
      const uint32_t at = c + 4 * k * blockDim.x;
      if (at >= end) continue;
      if (at >= cols) v[k] = make_float4(0, 0, 0, 0);
      largest = fmaxf(largest, fmaxf(fmaxf(fabsf(v[k].x), fabsf(v[k].y)), fmaxf(fabsf(v[k].z), fabsf(v[k].w))));
      *reinterpret_cast<float4*>(values + at - first) = v[k];  // read by this thread alone
    }
  }
  const float2 both = reduce(power, largest, parts, of_warps);
  const float factor = kInput == Input::kNorm ? __frsqrt_rn(both.x / static_cast<float>(cols) + epsilon) : 1.0f;
  const Step32 of_token = step_of(both.y * factor);
  if (first == 0 && threadIdx.x == 0) out.scales[row] = of_token.scale;
  for (uint32_t c = first + 4 * threadIdx.x; c < end; c += 4 * blockDim.x) {
    auto* of_thread = reinterpret_cast<float4*>(values + c - first);
    float4 v = *of_thread;
    v = {v.x * factor, v.y * factor, v.z * factor, v.w * factor};
    if (plain != nullptr && c < cols) *reinterpret_cast<float4*>(plain + static_cast<uint64_t>(row) * cols + c) = v;
    // Eight lanes have a block of 32.
    float of_block = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
#pragma unroll
    for (int d = 4; d > 0; d /= 2) of_block = fmaxf(of_block, __shfl_xor_sync(0xffffffffu, of_block, d));
    const Step32 step = step_of(of_block);
    const float scale = step.scale * of_token.inverse;
    const auto rounded = [&](float value) { return rintf(value * step.inverse) * scale; };
    *of_thread = {rounded(v.x), rounded(v.y), rounded(v.z), rounded(v.w)};
  }
  __syncthreads();
  // A thread 16 bytes.
  for (uint32_t c = first + 8 * threadIdx.x; c < end; c += 8 * blockDim.x) {
    if (out.together == 0) {
      const auto* from = reinterpret_cast<const float4*>(values + c - first);
      const float4 a = from[0], b = from[1];
      auto* halves = static_cast<__half*>(out.values) + static_cast<uint64_t>(row) * out.width;
      *reinterpret_cast<uint4*>(halves + place_of_columns(c, few)) =
          make_uint4(pack(a.x, b.x), pack(a.y, b.y), pack(a.z, b.z), pack(a.w, b.w));
      continue;
    }
    const uint32_t part = c / 8 % 32;
    const float* from = values + c / 256 * 256 - first + column_of_part(part);
    uint32_t words[4];
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) words[i] = pack(from[64 * i], from[64 * i + 4]);
    auto* step = static_cast<uint4*>(out.values) + static_cast<uint64_t>(c / 256) * 32 * out.together;
    step[part * out.together + row] = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

template <Input kInput>
cudaError_t start(RowParts x, float* stream, const float* norm, float epsilon, uint32_t cols, uint32_t n,
                  HalfTokens out, float* plain, Queue queue) {
  // Few tokens are cut into parts, so that many multiprocessors work.
  const uint32_t parts =
      queue.chained && n <= 128 ? std::clamp((out.width + 1023) / 1024, 1u, n <= 16 ? kMostParts : 5u) : 1;
  const uint32_t part_columns = ((out.width + parts - 1) / parts + 255) / 256 * 256, bytes = 4 * part_columns;
  const uint32_t items = part_columns / 4 / kPlaces<kInput>, rounds = (items + kMostThreads - 1) / kMostThreads;
  const uint32_t threads = ((items + rounds - 1) / rounds + 31) / 32 * 32;
  if (bytes > 48 << 10) {
    const cudaError_t status = cudaFuncSetAttribute(prepare_kernel<kInput>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                    static_cast<int>(bytes));
    if (status != cudaSuccess) return status;
  }
  return chain(queue, prepare_kernel<kInput>, dim3(n * parts), dim3(threads), bytes, parts, x, stream, norm, epsilon,
               cols, part_columns, parts, n <= kFewTokens, out, plain);
}

}  // namespace

cudaError_t prepare_tokens(Input input, RowParts x, float* stream, const float* norm, float epsilon, uint32_t cols,
                           uint32_t n, HalfTokens out, float* plain, Queue queue) {
  const auto kernel = input == Input::kNorm           ? start<Input::kNorm>
                      : input == Input::kSwiglu       ? start<Input::kSwiglu>
                      : input == Input::kPairedSwiglu ? start<Input::kPairedSwiglu>
                                                      : start<Input::kPlain>;
  return kernel(x, stream, norm, epsilon, cols, n, out, plain, queue);
}

}  // namespace upg::cuda
