#include "cuda/kernel_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <random>

#include "cuda/first_gpu.h"
#include "cuda/spmv_device.h"

namespace upg::cuda {
namespace {

constexpr uint64_t kRows = 17920, kCols = 5120, kDrawnRows = 64;
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

}  // namespace

std::vector<KernelTime> time_kernels(unsigned rounds, const Progress& progress) {
  if (!has_gpu()) fail(ErrorCode::kUnsupported, "no CUDA device was found");
  const std::vector<float> ones(kVectors * kCols, 1.0f);
  const auto x = upload(ones.data(), ones.size(), "vectors");
  const auto y = allocate_zeros<float>(kVectors * kRows, "vectors");
  cudaEvent_t events[2];
  for (cudaEvent_t& event : events) check(cudaEventCreate(&event), "events");
  std::vector<KernelTime> times;
  uint64_t done = 0;
  for (double density : kDensities) {
    const Sparse sparse(density);
    std::vector<std::unique_ptr<DeviceSparse>> copies;
    for (uint64_t i = 0; i == 0 || i * sparse.bytes() < kMemoryBytes; ++i)
      copies.push_back(std::make_unique<DeviceSparse>(sparse.view()));
    for (const SpmvKernel& kernel : spmv_kernels()) {
      for (uint32_t n : {1u, kVectors}) {
        const uint64_t calls = std::max<uint64_t>(copies.size(), 8);
        std::vector<double> seconds;
        for (unsigned round = 0; round <= rounds; ++round) {  // the first one warms up
          check(cudaEventRecord(events[0]), "events");
          for (uint64_t i = 0; i < calls; ++i)
            check(kernel.run(copies[i % copies.size()]->matrix(), x.get(), n, y.get(), nullptr), "a sparse product");
          check(cudaEventRecord(events[1]), "events");
          check(cudaEventSynchronize(events[1]), "a sparse product");
          float milliseconds = 0;
          check(cudaEventElapsedTime(&milliseconds, events[0], events[1]), "events");
          if (round > 0) seconds.push_back(1e-3 * milliseconds / static_cast<double>(calls));
        }
        std::nth_element(seconds.begin(), seconds.begin() + static_cast<ptrdiff_t>(seconds.size() / 2), seconds.end());
        times.push_back({fmt::format("spmv_{} at {:.0f}%", kernel.name, 100 * density), n, seconds[seconds.size() / 2],
                         static_cast<double>(kRows * kCols), static_cast<double>(sparse.bytes())});
      }
    }
    if (progress && !progress("kernels", ++done, std::size(kDensities))) fail(ErrorCode::kCancelled, "cancelled");
  }
  for (cudaEvent_t event : events) cudaEventDestroy(event);
  return times;
}

}  // namespace upg::cuda
