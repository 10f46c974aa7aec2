#include <algorithm>

#include "cuda/attend.cuh"
#include "cuda/embed.cuh"
#include "cuda/launch.cuh"
#include "cuda/pdvm.h"
#include "cuda/product.cuh"

namespace upg::cuda {
namespace {

constexpr uint32_t kStagesAtHand = 5;
// Shared memory for what is declared in kernels: descriptions of stages, and some words.
constexpr uint32_t kDeclared = 2560;
static_assert(kStagesAtHand * sizeof(Stage) + 256 <= kDeclared);

// All blocks have come here as often in this launch. Stores before are visible after.
__device__ void wait_for_all(State* state, Pass& pass, Patience& patience) {
  __syncthreads();
  if (thread_now() == 0) {
    const uint32_t wanted = ++pass.rounds * gridDim.x;
    uint32_t* arrived = &state->arrived;
    // Ordered after the stores of all threads by the barrier above.
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(arrived) : "memory");
    patience.renew();
    uint32_t seen = 0;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(arrived) : "memory");
    } while (seen < wanted && patience.more());
  }
}

// Asks for word i of what is at `from`. On GPUs before 9.0 it is there at once: groups of such copies are counted
// there, to know which weights have come.
__device__ void fetch_word(void* to, const void* from, uint32_t i) {
  uint32_t* word = static_cast<uint32_t*>(to) + i;
  const uint32_t* source = static_cast<const uint32_t*>(from) + i;
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(word)), "l"(source) : "memory");
#else
  *word = *source;
#endif
}
// All that this thread asked for.
__device__ void words_are_there() {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Brings nearer what a stage, or the attention that follows it, reads that no other stage wrote just now.
__device__ void fetch_ahead(const Stage& s, const AttendShape& attend, const AttendItem& item, uint32_t position) {
  if (s.keys != nullptr) fetch_cache(s, attend, item, position);
  if (s.op != Op::kProduct || s.input != Input::kNorm) return;
  const uint32_t line = blockIdx.x + thread_now() * gridDim.x;
  if (32 * line < s.w.cols) asm volatile("prefetch.global.L2 [%0];" ::"l"(s.norm + 32 * line));
}

__device__ void select_stage(const Stage& s, State* state) {
  if (blockIdx.x != 0 || threadIdx.x >= 32) return;
  Best best = {-INFINITY, 0x7fffffff};
  for (uint32_t i = threadIdx.x; i < gridDim.x; i += 32) {
    const Best other = {__ldcg(&s.best[i].logit), __ldcg(&s.best[i].token)};
    if (likelier(other, best)) best = other;
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2) {
    const Best other = {__shfl_xor_sync(0xffffffffu, best.logit, d), __shfl_xor_sync(0xffffffffu, best.token, d)};
    if (likelier(other, best)) best = other;
  }
  if (threadIdx.x == 0) {
    // Logits that are not numbers choose nothing.
    __stcg(&state->token, best.token == 0x7fffffff ? 0 : best.token);
    __stcg(&state->position, __ldcg(&state->position) + 1);
  }
}

__global__ void __launch_bounds__(kThreads, 1)
    run(Machine m, uint32_t begin, uint32_t end, uint32_t first_reading, uint32_t end_reading) {
  extern __shared__ __align__(128) uint8_t shared[];
  const uint32_t warp = share_of_warp();
  const auto at = [&](uint32_t place) { return static_cast<void*>(shared + place); };
  const Scratch scratch = {static_cast<int8_t*>(at(m.places.q)),
                           static_cast<uint32_t*>(at(m.places.zero)),
                           static_cast<float*>(at(m.places.x)),
                           static_cast<float*>(at(m.places.stream)),
                           static_cast<float*>(at(m.places.sums)),
                           static_cast<float*>(at(m.places.q)),
                           static_cast<Span*>(at(m.places.spans)),
                           m.sum_slots,
                           m.slot_bytes,
                           static_cast<float*>(at(m.places.reduce)),
                           static_cast<float2*>(at(m.places.steps)),
                           m.one};
  auto* readings = static_cast<BlockReading*>(at(m.places.readings));

  // The description of a stage, of the one before, which some threads may be at, and of the three after.
  __shared__ __align__(16) Stage stages[kStagesAtHand];
  constexpr uint32_t kStageWords = sizeof(Stage) / 4;
  static_assert(kStageWords <= kThreads, "a thread a word");
  const auto fetch_stage = [&](uint32_t i) {
    const uint32_t word = thread_now();
    if (i < end && word < kStageWords) fetch_word(&stages[i % kStagesAtHand], m.stages + i, word);
  };
  for (uint32_t i = begin; i < begin + 3; ++i) fetch_stage(i);
  for (uint32_t i = threadIdx.x; i < end_reading - first_reading; i += kThreads)
    readings[i] = block_reading(m.readings[first_reading + i], blockIdx.x);
  words_are_there();
  __syncthreads();
  // What is above, and the first weights, depends on no kernel before.
  WeightStream stream(readings, end_reading - first_reading, warp,
                      shared + m.places.rings + warp * m.slots * m.slot_bytes,
                      static_cast<uint64_t*>(at(m.places.barriers)) + warp * m.slots, m.slots, m.slot_bytes);
  wait_for_kernel_before();
  let_next_kernel_start();
  __shared__ AttendShape attend;
  if (threadIdx.x < sizeof attend / 4)
    reinterpret_cast<uint32_t*>(&attend)[threadIdx.x] =
        __ldcg(reinterpret_cast<const uint32_t*>(&m.state->attend) + threadIdx.x);
  __shared__ Pass pass;
  if (threadIdx.x == 0)
    pass = {__ldcg(&m.state->position),
            __ldcg(&m.state->layers_before),
            (m.hidden / gridDim.x + 4) / 4 * 4,
            0,
            false,
            false};
  Patience patience(m.state, &pass.gave_up);
  __shared__ AttendItem item;
  __syncthreads();
  if (thread_now() == 0 && blockIdx.x < attend_items(attend)) item = attend_item(attend, blockIdx.x, pass.position);
  __syncthreads();
#pragma unroll 1
  for (uint32_t i = begin; i < end; ++i) {
    const Stage& s = stages[i % kStagesAtHand];
    const auto ahead = [&] {
      fetch_stage(i + 3);
      if (i + 1 < end) fetch_ahead(stages[(i + 1) % kStagesAtHand], attend, item, pass.position);
    };
    // Not a switch, which would look its way up in a table.
    const Op op = static_cast<Op>(uniform(static_cast<uint32_t>(s.op)));
    if (op == Op::kProduct) {
      if (product_stage(s, stream, scratch, pass, patience, ahead)) return;
    } else if (op == Op::kAttend) {
      ahead();
      attend_stage(s, attend, item, scratch, pass, patience);
    } else if (op == Op::kEmbed) {
      ahead();
      embed_row(s.w, __ldcg(&m.state->token), threadIdx.x * gridDim.x + blockIdx.x, gridDim.x * kThreads,
                s.next_stream);
    } else {
      select_stage(s, m.state);
    }
    words_are_there();
    // What has tags needs no waiting for all; and products meet inside, so that the block need not meet after them.
    const bool ends = s.op == Op::kEmbed || s.best != nullptr;
    if (i + 1 < end && ends) wait_for_all(m.state, pass, patience);
    if (s.op != Op::kProduct || ends) {
      __syncthreads();
      if (uniform(patience.exhausted())) return;
    }
    __syncwarp();
  }
  // The last block out leaves the counters as they were.
  if (thread_now() == 0 && pass.rounds > 0 && atomicAdd(&m.state->left, 1u) == gridDim.x - 1) {
    atomicExch(&m.state->arrived, 0u);
    atomicExch(&m.state->left, 0u);
  }
}

// A thread a lane of a step.
__global__ void repack_kernel(const uint32_t* codes, const uint8_t* block_scales, TrellisMatrix to, uint8_t* data) {
  const uint64_t thread = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const uint32_t lane = thread % 32, step = thread / 32 % to.steps;
  const uint64_t panel = thread / 32 / to.steps;
  if (panel >= to.panels) return;
  const uint32_t g = lane / 4, t = lane % 4, block = kStepBlocks * step + 2 * t + g / 4;
  // Four rows of the file, of one panel there.
  const uint32_t here = static_cast<uint32_t>(16 * panel + 4 * (g & 3));
  const uint32_t row = to.paired ? unpaired_row(here, to.rows) : here;
  uint8_t* at = data + (panel * to.steps + step) * step_bytes(to.bits);
  const bool inside = block < to.blocks;
  const uint64_t tile = static_cast<uint64_t>(row / 16) * to.blocks + block;
  for (uint32_t i = 0; i < 4; ++i) {
    uint32_t words[4] = {0, 0, 0, 0};
    for (uint32_t k = 0; k < to.bits && inside; ++k) words[k] = codes[(tile * to.bits + k) * 16 + row % 16 + i];
    if (to.bits == 3) to_device_words3(words);
    for (uint32_t k = 0; k < to.bits; ++k) reinterpret_cast<uint32_t*>(at + 512 * k)[4 * lane + i] = words[k];
  }
  uint32_t scales = 0;
  for (uint32_t i = 0; i < 4 && inside; ++i)
    scales |= ((block_scales[8 * tile + (row + i) % 8] >> (row % 16 < 8 ? 0 : 4)) & 15u) << (4 * i);
  reinterpret_cast<uint16_t*>(at + 512 * to.bits)[lane] = static_cast<uint16_t>(scales);
}

__global__ void row_scales_kernel(const uint16_t* row_scales, TrellisMatrix to, float* scales) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= 16 * to.panels) return;
  const uint32_t row = to.paired ? unpaired_row(i, to.rows) : i;
  scales[i] = i < to.rows ? __uint_as_float(static_cast<uint32_t>(row_scales[row]) << 16) * 0x1p-15f : 0.0f;
}

}  // namespace

bool fit_shared_memory(Machine* m, uint32_t limit, bool bulk_copies) {
  uint32_t end = 0;
  const auto place = [&](uint64_t bytes) {
    const uint32_t from = end;
    end += static_cast<uint32_t>((bytes + 15) / 16 * 16);
    return from;
  };
  SharedPlaces& p = m->places;
  p.q = place(32 * m->input_blocks);
  p.zero = place(sizeof(uint32_t) * m->input_blocks);
  p.sums = place(sizeof(float) * m->sum_floats);
  end = std::max(end, p.q + static_cast<uint32_t>(sizeof(float)) * kAttendFloats);
  p.spans = place(sizeof(Span) * m->most_panels);
  p.x = place(sizeof(float) * m->residual_columns);
  p.stream = place(sizeof(float) * m->hidden);
  p.reduce = place(sizeof(float) * kWarps);
  p.steps = place(kStepPairBytes);
  p.readings = place(sizeof(BlockReading) * m->readings_count);
  constexpr uint32_t kAligned = 128;
  if (end + kDeclared + kAligned >= limit) return false;
  const uint32_t most = bulk_copies ? 8 : WeightStream::kFallbackSlots, least = bulk_copies ? 2 : most;
  const auto slots_of = [&](uint32_t bytes) {
    return std::min((limit - kDeclared - kAligned - end) / (kWarps * (bytes + 8)), most);
  };
  if (slots_of(m->slot_bytes) < least) m->slot_bytes = m->widest_step;
  m->slots = slots_of(m->slot_bytes);
  p.barriers = place(sizeof(uint64_t) * kWarps * m->slots);
  end = (end + kAligned - 1) / kAligned * kAligned;
  p.rings = place(uint64_t{kWarps} * m->slots * m->slot_bytes);
  m->shared_bytes = end;
  return m->slots >= least;
}

cudaError_t prepare(const Machine& m) {
  return cudaFuncSetAttribute(run, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(m.shared_bytes));
}

cudaError_t launch(const Machine& machine, StageRange range, cudaStream_t stream) {
  Machine m = machine;
  m.one = 1;
  if (range.end - range.begin == 1)
    return chain({stream, m.chained != 0}, run, dim3(m.blocks), dim3(kThreads), m.shared_bytes, 1, m, range.begin,
                 range.end, range.first_reading, range.end_reading);
  void* args[] = {&m, &range.begin, &range.end, &range.first_reading, &range.end_reading};
  return cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(run), dim3(m.blocks), dim3(kThreads), args,
                                     m.shared_bytes, stream);
}

cudaError_t repack(const uint32_t* codes, const uint8_t* block_scales, const uint16_t* row_scales,
                   const TrellisMatrix& to, uint8_t* data, float* scales, cudaStream_t stream) {
  const uint64_t threads = 32ull * to.panels * to.steps;
  repack_kernel<<<static_cast<unsigned>((threads + 255) / 256), 256, 0, stream>>>(codes, block_scales, to, data);
  row_scales_kernel<<<(16 * to.panels + 255) / 256, 256, 0, stream>>>(row_scales, to, scales);
  return cudaGetLastError();
}

}  // namespace upg::cuda
