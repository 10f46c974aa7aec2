#include "cuda/kernel_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <random>

#include "cuda/batch.h"
#include "cuda/first_gpu.h"
#include "cuda/program_builder.h"
#include "cuda/random_trellis.h"
#include "cuda/spmv_device.h"

namespace upg::cuda {
namespace {

constexpr uint64_t kRows = 17920, kCols = 5120, kDrawnRows = 64;
constexpr uint32_t kBits[] = {2, 3, 4};
constexpr double kDensities[] = {0.01, 0.05, 0.1, 0.2, 0.5};
constexpr uint64_t kMemoryBytes = uint64_t{256} << 20;  // several times the second-level cache
constexpr uint32_t kVectors = 8;

// A few drawn rows, repeated.
struct Sparse {
  explicit Sparse(double density) : scales(kRows, 0.01f), row_pointers(kRows + 1) {
    std::mt19937 random(5);
    std::uniform_real_distribution<double> uniform;
    std::vector<size_t> ends;
    for (uint64_t row = 0; row < kDrawnRows; ++row) {
      uint64_t last = 0;
      for (uint64_t c = 0; c < kCols; ++c) {
        if (uniform(random) >= density) continue;
        for (; c - last > kSkipDelta; last += kSkipDelta) put(kSkipDelta, kSkipValue);
        put(static_cast<uint8_t>(c - last), static_cast<int8_t>(static_cast<int>(random() % 255) - 127));
        last = c;
      }
      ends.push_back(values.size());
    }
    const size_t drawn = values.size();
    for (uint64_t row = 0; row < kRows; ++row)
      row_pointers[row + 1] = static_cast<uint32_t>(row / kDrawnRows * drawn + ends[row % kDrawnRows]);
    for (uint64_t copy = 1; copy < kRows / kDrawnRows; ++copy) {
      values.insert(values.end(), values.begin(), values.begin() + static_cast<ptrdiff_t>(drawn));
      deltas.insert(deltas.end(), deltas.begin(), deltas.begin() + static_cast<ptrdiff_t>(drawn));
    }
  }
  void put(uint8_t delta, int8_t value) {
    deltas.push_back(delta);
    values.push_back(value);
  }
  MdcsrView view() const {
    return {kRows,         kCols,   values.size(), values.data(), deltas.data(), row_pointers.data(),
            scales.data(), nullptr, nullptr};
  }
  uint64_t bytes() const { return 2 * values.size() + 4 * row_pointers.size() + 4 * scales.size(); }

  std::vector<int8_t> values;
  std::vector<uint8_t> deltas;
  std::vector<float> scales;
  std::vector<uint32_t> row_pointers;
};

// Copies of a matrix that no cache holds together.
struct TrellisCopies {
  explicit TrellisCopies(uint32_t bits) {
    for (uint64_t i = 0; i == 0 || i * bytes < kMemoryBytes; ++i) {
      copies.emplace_back(kRows, kCols, bits, 1.0f);
      matrices.push_back(copies.back().matrix());
      bytes = copies.back().bytes();
    }
  }
  std::vector<RandomTrellis> copies;
  std::vector<TrellisMatrix> matrices;
  uint64_t bytes = 0;
};

class Clock {
 public:
  Clock() {
    for (cudaEvent_t& event : events_) check(cudaEventCreate(&event), "events");
  }
  ~Clock() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;

  // Median over the rounds of what one of `calls` takes that f makes.
  template <typename F>
  double seconds(unsigned rounds, uint64_t calls, F f) {
    std::vector<double> times;
    for (unsigned round = 0; round <= rounds; ++round) {  // the first one warms up
      check(cudaEventRecord(events_[0]), "events");
      f();
      check(cudaEventRecord(events_[1]), "events");
      check(cudaEventSynchronize(events_[1]), "a product");
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, events_[0], events_[1]), "events");
      if (round > 0) times.push_back(1e-3 * milliseconds / static_cast<double>(calls));
    }
    std::nth_element(times.begin(), times.begin() + static_cast<ptrdiff_t>(times.size() / 2), times.end());
    return times[times.size() / 2];
  }

 private:
  cudaEvent_t events_[2];
};

// One token: many products in one launch, as the token's kernel runs them; the input's quantising is counted.
double time_one(const TrellisCopies& copies, const cudaDeviceProp& gpu, unsigned rounds, Clock& clock) {
  std::vector<uint32_t> ones(kCols, 0x3f800001u);  // tagged with 1
  const auto x = upload(ones.data(), ones.size(), "vectors");
  const auto y = allocate_zeros<float>(kMostSlices * kRows, "vectors");
  const auto blocks = static_cast<uint32_t>(gpu.multiProcessorCount);
  std::vector<TrellisMatrix> matrices;
  while (matrices.size() < 64) matrices.insert(matrices.end(), copies.matrices.begin(), copies.matrices.end());
  const Program program = build_products(matrices, blocks, reinterpret_cast<const float*>(x.get()), y.get());
  const auto stages = upload(program.stages.data(), program.stages.size(), "the program");
  const auto readings = upload(program.readings.data(), program.readings.size(), "the program");
  const auto state = allocate_zeros<State>(1, "the program");
  Machine machine = size_machine(program.stages, blocks);
  machine.stages = stages.get();
  machine.readings = readings.get();
  machine.readings_count = static_cast<uint32_t>(program.readings.size());
  machine.state = state.get();
  if (!fit_shared_memory(&machine, static_cast<uint32_t>(gpu.sharedMemPerBlockOptin), gpu.major >= 9)) return 0;
  check(prepare(machine), "preparing kernels");
  const auto n = static_cast<uint32_t>(program.stages.size());
  return clock.seconds(rounds, n, [&] { check(launch(machine, program.range(0, n), nullptr), "a product"); });
}

// Several tokens, prepared before: a launch a copy.
double time_several(const TrellisCopies& copies, const cudaDeviceProp& gpu, uint32_t n, unsigned rounds, Clock& clock) {
  const auto multiprocessors = static_cast<uint32_t>(gpu.multiProcessorCount);
  const auto shared_limit = static_cast<uint32_t>(gpu.sharedMemPerBlockOptin);
  if (!can_multiply_tokens(shared_limit)) return 0;
  const TrellisMatrix& w = copies.matrices[0];
  const uint64_t part_floats = gemm_part_floats(w, n, multiprocessors);
  const auto parts = allocate_zeros<float>(part_floats, "vectors");
  const auto scratch = allocate_zeros<float>(few_scratch_floats(multiprocessors), "vectors");
  const std::vector<float> ones(n * kCols, 1.0f);
  const auto x = upload(ones.data(), ones.size(), "vectors");
  const GemmResources resources{shared_limit, has_warpgroups(gpu), multiprocessors,
                                parts.get(),  part_floats,         scratch.get()};
  const auto halves = allocate_zeros<uint16_t>(256 * kCols, "vectors");
  const auto scales = allocate_zeros<float>(n, "vectors");
  const auto y = allocate_zeros<float>(n * kRows, "vectors");
  const Queue queue{nullptr, gpu.major >= 9};
  const HalfTokens tokens{halves.get(), scales.get(), kCols, tokens_together(w, n, resources)};
  check(prepare_tokens(Input::kPlain, {x.get(), 1, 0, kCols}, nullptr, nullptr, 0, kCols, n, tokens, nullptr, queue),
        "preparing tokens");
  return clock.seconds(rounds, copies.matrices.size(), [&] {
    RowParts where{};
    for (const TrellisMatrix& copy : copies.matrices)
      check(multiply_tokens(copy, tokens, n, y.get(), kRows, resources, &where, queue), "a product");
  });
}

}  // namespace

std::vector<KernelTime> time_kernels(unsigned rounds, const Progress& progress) {
  if (!has_gpu()) fail(ErrorCode::kUnsupported, "no CUDA device was found");
  const cudaDeviceProp gpu = use_first_gpu(7, 5, "measuring kernels");
  Clock clock;
  std::vector<KernelTime> times;
  uint64_t done = 0;
  const auto put = [&](const std::string& name, uint32_t n, double seconds, uint64_t bytes) {
    if (seconds > 0)
      times.push_back({name, n, seconds, static_cast<double>(kRows * kCols), static_cast<double>(bytes)});
  };
  const auto step = [&] {
    if (progress && !progress("kernels", ++done, std::size(kBits) + std::size(kDensities)))
      fail(ErrorCode::kCancelled, "cancelled");
  };
  for (uint32_t bits : kBits) {
    const TrellisCopies copies(bits);
    const std::string name = fmt::format("trellis{}", bits);
    put(name, 1, time_one(copies, gpu, rounds, clock), copies.bytes);
    for (uint32_t n : {2u, 4u, 8u, 16u, 32u, 64u})
      put(name, n, time_several(copies, gpu, n, rounds, clock), copies.bytes);
    step();
  }
  const std::vector<float> ones(kVectors * kCols, 1.0f);
  const auto x = upload(ones.data(), ones.size(), "vectors");
  const auto y = allocate_zeros<float>(kVectors * kRows, "vectors");
  for (double density : kDensities) {
    const Sparse sparse(density);
    std::vector<std::unique_ptr<DeviceSparse>> copies;
    for (uint64_t i = 0; i == 0 || i * sparse.bytes() < kMemoryBytes; ++i)
      copies.push_back(std::make_unique<DeviceSparse>(sparse.view()));
    for (const SpmvKernel& kernel : spmv_kernels()) {
      for (uint32_t n : {1u, kVectors}) {
        const uint64_t calls = std::max<uint64_t>(copies.size(), 8);
        const double seconds = clock.seconds(rounds, calls, [&] {
          for (uint64_t i = 0; i < calls; ++i)
            check(kernel.run(copies[i % copies.size()]->matrix(), x.get(), n, y.get(), nullptr), "a sparse product");
        });
        put(fmt::format("spmv_{} at {:.0f}%", kernel.name, 100 * density), n, seconds, sparse.bytes());
      }
    }
    step();
  }
  return times;
}

}  // namespace upg::cuda
