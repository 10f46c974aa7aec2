// A row has sixteen lanes: two finalists among the steps of the ladder, times the eight states that a path may begin
// and end in. A lane runs the Viterbi search with its eight survivors in registers and their targets in shared memory.
// What comes first wins among equals, as on the CPU.
#include "codec/layout/trellis.h"
#include "cuda/trellis_search.h"

namespace upg::cuda {
namespace {

constexpr unsigned kLanes = 16, kBlock = kTrellisBlockCols, kStates = kTrellisStates;
constexpr unsigned kCandidates = 6, kFinalists = 2;
constexpr float kInfinity = 1e30f;
constexpr unsigned kOld = 16;  // of a decision: the survivor came from the state with the oldest bit set
// Floats of shared memory a thread has for a position.
template <bool kFeedback>
constexpr unsigned kSlotsOf = kFeedback ? kStates : 2;

struct Branches {
  float difference[2];
  uint32_t code[2];
};

template <unsigned kBits>
__device__ __forceinline__ void nearest(const float (&level)[16], float x, float scale, Branches& out) {
#pragma unroll
  for (unsigned parity = 0; parity < 2; ++parity) {
    float best = x - scale * level[parity], size = best * best;
    uint32_t code = parity;
#pragma unroll
    for (unsigned h = parity + 2; h < (1u << kBits); h += 2) {
      const float d = x - scale * level[h], e = d * d;
      const bool closer = e < size;
      code = closer ? h : code;
      best = closer ? d : best;
      size = closer ? e : size;
    }
    out.difference[parity] = best;
    out.code[parity] = code;
  }
}

// Survivors by one position: as extend() in codec/trellis_search.cc. Decisions of the eight states, a byte each.
template <typename BranchesOf>
__device__ __forceinline__ void extend(BranchesOf&& branches, float weight, float (&cost)[kStates],
                                       uint32_t (&decision)[2], bool (&from_old)[kStates],
                                       float (&difference)[kStates]) {
  float before[kStates];
#pragma unroll
  for (unsigned s = 0; s < kStates; ++s) before[s] = cost[s];
  decision[0] = decision[1] = 0;
#pragma unroll
  for (unsigned t = 0; t < kStates; ++t) {
    const unsigned young = t >> 1, old = young | (kStates >> 1);
    const unsigned flip0 = trellis_flip(young), flip1 = trellis_flip(old);
    const unsigned parity0 = (t & 1) ^ flip0, parity1 = (t & 1) ^ flip1;
    const Branches& b0 = branches(young);
    const Branches& b1 = branches(old);
    const float d0 = b0.difference[parity0], d1 = b1.difference[parity1];
    const float c0 = before[young] + weight * (d0 * d0), c1 = before[old] + weight * (d1 * d1);
    const bool one = c1 < c0;
    from_old[t] = one;
    const uint32_t code = one ? (b1.code[parity1] ^ flip1) | kOld : b0.code[parity0] ^ flip0;
    decision[t / 4] |= code << (8 * (t % 4));
    difference[t] = one ? d1 : d0;
    cost[t] = one ? c1 : c0;
  }
}

template <unsigned kBits, bool kFeedback>
__global__ void __launch_bounds__(192) search_kernel(BlockSearch a) {
  // [32][slots][threads]: targets of each survivor, if errors feed them; once they are past, decisions.
  extern __shared__ float memory[];
  constexpr unsigned kSlots = kSlotsOf<kFeedback>;
  __shared__ float feedback[kBlock][kBlock];
  const unsigned threads = blockDim.x, lane = threadIdx.x % kLanes;
  const uint32_t row = blockIdx.x * (threads / kLanes) + threadIdx.x / kLanes;
  if (kFeedback) {
    for (unsigned i = threadIdx.x; i < kBlock * kBlock; i += threads)
      feedback[i / kBlock][i % kBlock] = a.feedback[i / kBlock * a.feedback_stride + i % kBlock];
    __syncthreads();
  }
  // Lanes of one row go on together, those without a row take the last one's place and write nothing.
  const bool inside = row < a.rows;
  const uint32_t r = inside ? row : a.rows - 1;
  const float* target = a.target + r;
  const float* original = a.original + r;
  const auto weight_at = [&](unsigned i) { return a.weight ? a.weight[i] : a.weights[i * a.stride + r]; };
  const float row_scale = a.scale[r];
  float* mine = memory + threadIdx.x;
  const auto at = [&](unsigned i, unsigned s) -> float& { return mine[(i * kSlots + s) * threads]; };

  // Which steps of the ladder: the middle one by the block's size, then the two of six that do best with free ends.
  float table_power = 0, power = 0;
#pragma unroll
  for (unsigned h = 0; h < (1u << kBits); ++h) table_power += a.level[0][h] * a.level[0][h];
  const float table_rms = sqrtf(table_power / static_cast<float>(1u << kBits)) / 1.3f;
#pragma unroll 1
  for (unsigned i = 0; i < kBlock; ++i) {
    const float x = target[i * a.stride];
    power += x * x;
  }
  const float rms = sqrtf(power / static_cast<float>(kBlock));
  const float wanted = row_scale > 0 ? rms / (row_scale * table_rms) : 0.0f;
  int central = 0;
  while (central < 15 && a.step[central] * a.step[central + 1] < wanted * wanted) ++central;
  const auto candidate = [&](unsigned c) {
    const int n = central + static_cast<int>(c) - static_cast<int>(kCandidates / 2);
    return static_cast<unsigned>(n < 0 ? 0 : n > 15 ? 15 : n);
  };
  float least = kInfinity;
  {
    const float scale = row_scale * a.step[candidate(min(lane, kCandidates - 1))];
    float cost[kStates] = {}, difference[kStates];
    bool from_old[kStates];
    uint32_t decision[2];
#pragma unroll 1
    for (unsigned i = 0; i < kBlock; ++i) {
      Branches b[2];
      const float x = target[i * a.stride];
      nearest<kBits>(a.level[0], x, scale, b[0]);
      nearest<kBits>(a.level[1], x, scale, b[1]);
      extend([&](unsigned s) -> const Branches& { return b[trellis_row(s)]; }, weight_at(i), cost, decision, from_old,
             difference);
    }
    least = cost[0];
#pragma unroll
    for (unsigned s = 1; s < kStates; ++s) least = cost[s] < least ? cost[s] : least;
  }
  float finalist_error[kFinalists] = {kInfinity * 1e6f, kInfinity * 1e6f};
  unsigned finalist[kFinalists] = {};
#pragma unroll
  for (unsigned c = 0; c < kCandidates; ++c) {
    const float error = __shfl_sync(0xffffffffu, least, c, kLanes);
    const bool first = error < finalist_error[0], second = error < finalist_error[1];
    finalist[1] = first ? finalist[0] : second ? candidate(c) : finalist[1];
    finalist_error[1] = first ? finalist_error[0] : second ? error : finalist_error[1];
    finalist[0] = first ? candidate(c) : finalist[0];
    finalist_error[0] = first ? error : finalist_error[0];
  }

  const unsigned step = finalist[lane / kStates], start = lane % kStates;
  const float scale = row_scale * a.step[step];
  float cost[kStates];
#pragma unroll
  for (unsigned s = 0; s < kStates; ++s) cost[s] = s == start ? 0.0f : kInfinity;
  if (kFeedback) {
#pragma unroll 1
    for (unsigned i = 0; i < kBlock; ++i) {
      const float x = target[i * a.stride];
#pragma unroll
      for (unsigned s = 0; s < kStates; ++s) at(i, s) = x;
    }
  }
#pragma unroll 1
  for (unsigned i = 0; i < kBlock; ++i) {
    float difference[kStates];
    bool from_old[kStates];
    uint32_t decision[2];
    const float weight = weight_at(i);
    if (kFeedback) {
      float own[kStates];
      Branches b[kStates];
#pragma unroll
      for (unsigned s = 0; s < kStates; ++s) {
        own[s] = at(i, s);
        nearest<kBits>(a.level[trellis_row(s)], own[s], scale, b[s]);
      }
      extend([&](unsigned s) -> const Branches& { return b[s]; }, weight, cost, decision, from_old, difference);
      float error[kStates];
      const float first = original[i * a.stride];
#pragma unroll
      for (unsigned t = 0; t < kStates; ++t) {
        const float missed = weight != 0.0f ? difference[t] : 0.0f;  // without weight: made good elsewhere
        error[t] = first - ((from_old[t] ? own[(t >> 1) | (kStates >> 1)] : own[t >> 1]) - missed);
      }
#pragma unroll 1
      for (unsigned k = i + 1; k < kBlock; ++k) {
        const float f = feedback[k][i];
        float before[kStates];
#pragma unroll
        for (unsigned s = 0; s < kStates; ++s) before[s] = at(k, s);
#pragma unroll
        for (unsigned t = 0; t < kStates; ++t)
          at(k, t) = (from_old[t] ? before[(t >> 1) | (kStates >> 1)] : before[t >> 1]) + f * error[t];
      }
    } else {
      Branches b[2];
      const float x = target[i * a.stride];
      nearest<kBits>(a.level[0], x, scale, b[0]);
      nearest<kBits>(a.level[1], x, scale, b[1]);
      extend([&](unsigned s) -> const Branches& { return b[trellis_row(s)]; }, weight, cost, decision, from_old,
             difference);
    }
    at(i, 0) = __uint_as_float(decision[0]);
    at(i, 1) = __uint_as_float(decision[1]);
  }
  float mine_cost = cost[0];
#pragma unroll
  for (unsigned s = 1; s < kStates; ++s) mine_cost = s == start ? cost[s] : mine_cost;
  float best = mine_cost;
  unsigned winner = lane;
#pragma unroll
  for (unsigned d = kLanes / 2; d > 0; d /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, best, d);
    const unsigned other_lane = __shfl_xor_sync(0xffffffffu, winner, d);
    if (other < best || (other == best && other_lane < winner)) {
      best = other;
      winner = other_lane;
    }
  }
  if (winner != lane || !inside) return;

  // The winner's way back, its words, and what it decodes to.
  uint64_t low = 0, high = 0;  // 32 codes of four bits
  unsigned state = start;
#pragma unroll 1
  for (unsigned i = kBlock; i-- > 0;) {
    const uint32_t decision = __float_as_uint(at(i, state / 4)) >> (8 * (state % 4)) & 0xffu;
    const uint64_t code = decision & 15;
    if (i < 16) {
      low |= code << (4 * i);
    } else {
      high |= code << (4 * (i - 16));
    }
    state = (state >> 1) | (decision & kOld ? kStates >> 1 : 0);
  }
  const auto code_at = [&](unsigned i) {
    return static_cast<unsigned>((i < 16 ? low >> (4 * i) : high >> (4 * (i - 16))) & 15);
  };
  uint32_t words[kBits] = {};
#pragma unroll
  for (unsigned i = 0; i < kBlock; ++i) {
    const unsigned shift = 4 * (i / 4), plane = i % 4;
    const uint32_t code = code_at(i);
    if (kBits == 2) {
      words[plane >> 1] |= code << (shift + 2 * (plane & 1));
    } else if (kBits == 4 || plane < 3) {
      words[plane % kBits] |= code << shift;
    } else {
#pragma unroll
      for (unsigned b = 0; b < kBits; ++b) words[b] |= ((code >> b) & 1u) << (shift + 3);
    }
  }
#pragma unroll
  for (unsigned w = 0; w < kBits; ++w) a.words[row / kLanes * a.words_stride + w * kLanes + row % kLanes] = words[w];
  a.steps[row] = static_cast<uint8_t>(step);
  if (a.row_error) a.row_error[row] += best;
  if (!a.errors) return;
  state = 0;
  for (unsigned i = kBlock - 3; i < kBlock; ++i) state = trellis_next_state(state, code_at(i));
#pragma unroll 1
  for (unsigned i = 0; i < kBlock; ++i) {
    const unsigned code = code_at(i);
    float decoded = scale * a.level[trellis_row(state)][code ^ trellis_flip(state)];
    state = trellis_next_state(state, code);
    const bool real = a.order[i] < a.columns;
    if (a.outlier_scale && real && weight_at(i) == 0.0f) {
      const float plane = a.outlier_scale[row];
      const float steps = plane > 0 ? (target[i * a.stride] - decoded) / plane : 0.0f;
      const float value = roundf(fminf(fmaxf(steps, -127.0f), 127.0f));
      decoded += plane * value;
      a.residual[i * a.stride + row] = static_cast<int8_t>(value);
    }
    a.errors[row * a.errors_stride + i] = real ? original[i * a.stride] - decoded : 0.0f;
  }
}

__global__ void arrange_kernel(const float* from, uint32_t rows, uint32_t cols, const uint32_t* order, uint32_t n,
                               const float* factor, float* to, uint32_t stride) {
  __shared__ float square[32][33];
  const uint32_t k0 = blockIdx.x * 32, r0 = blockIdx.y * 32;
  // Chains reorder the columns of a block of 32 among themselves.
  const uint32_t k = k0 + threadIdx.x, col = k < n ? order[k] : cols;
  for (unsigned i = threadIdx.y; i < 32; i += blockDim.y) {
    const uint32_t r = r0 + i;
    square[i][threadIdx.x] = r < rows && col < cols ? from[uint64_t{r} * cols + col] * factor[r] : 0.0f;
  }
  __syncthreads();
  for (unsigned i = threadIdx.y; i < 32; i += blockDim.y) {
    const uint32_t r = r0 + threadIdx.x;
    if (k0 + i < n && r < stride) to[uint64_t{k0 + i} * stride + r] = square[threadIdx.x][i];
  }
}

__global__ void pack_kernel(const uint8_t* steps, uint32_t rows, uint32_t blocks, uint8_t* scales) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;  // of [rows / 16][8]
  const uint32_t block = blockIdx.y;
  if (i >= rows / 2) return;
  const uint32_t panel = i / 8, j = i % 8;
  const uint8_t* from = steps + uint64_t{block} * rows + 16 * panel;
  scales[(uint64_t{panel} * blocks + block) * 8 + j] = static_cast<uint8_t>(from[j] | from[j + 8] << 4);
}

template <unsigned kBits, bool kFeedback>
cudaError_t start(const BlockSearch& s, uint32_t shared_limit, cudaStream_t stream) {
  const uint32_t own = 4 * kBlock * kBlock + 1024;
  constexpr uint32_t kBytes = 4 * kBlock * kSlotsOf<kFeedback>;  // of a thread
  uint32_t threads = shared_limit > own ? (shared_limit - own) / kBytes / 32 * 32 : 0;
  if (threads == 0) return cudaErrorInvalidConfiguration;
  if (threads > 192) threads = 192;
  const uint32_t bytes = kBytes * threads;
  const cudaError_t allowed = cudaFuncSetAttribute(
      search_kernel<kBits, kFeedback>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (allowed != cudaSuccess) return allowed;
  const uint32_t rows = threads / kLanes;
  search_kernel<kBits, kFeedback><<<(s.rows + rows - 1) / rows, threads, bytes, stream>>>(s);
  return cudaGetLastError();
}

template <unsigned kBits>
cudaError_t start(const BlockSearch& s, uint32_t shared_limit, cudaStream_t stream) {
  return s.feedback ? start<kBits, true>(s, shared_limit, stream) : start<kBits, false>(s, shared_limit, stream);
}

}  // namespace

cudaError_t search_block(const BlockSearch& search, uint32_t shared_limit, cudaStream_t stream) {
  if (search.rows == 0) return cudaSuccess;
  if (search.bits == 2) return start<2>(search, shared_limit, stream);
  if (search.bits == 3) return start<3>(search, shared_limit, stream);
  return start<4>(search, shared_limit, stream);
}

cudaError_t arrange_rows(const float* from, uint32_t rows, uint32_t cols, const uint32_t* order, uint32_t n,
                         const float* factor, float* to, uint32_t stride, cudaStream_t stream) {
  arrange_kernel<<<dim3((n + 31) / 32, (stride + 31) / 32), dim3(32, 8), 0, stream>>>(from, rows, cols, order, n,
                                                                                      factor, to, stride);
  return cudaGetLastError();
}

cudaError_t pack_steps(const uint8_t* steps, uint32_t rows, uint32_t blocks, uint8_t* scales, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  pack_kernel<<<dim3((rows / 2 + 255) / 256, blocks), 256, 0, stream>>>(steps, rows, blocks, scales);
  return cudaGetLastError();
}

}  // namespace upg::cuda
