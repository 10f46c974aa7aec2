#include "cuda/spmv_device.h"

namespace upg::cuda {
namespace {

constexpr uint64_t kPrimes = 10000;

// With room to read words at the end.
template <typename T>
DeviceMemory<T> entries(const T* from, uint64_t n) {
  auto memory = allocate_zeros<T>(n + 4, "a sparse matrix");
  check(cudaMemcpy(memory.get(), from, n * sizeof(T), cudaMemcpyHostToDevice), "a sparse matrix");
  return memory;
}

}  // namespace

std::span<const SpmvKernel> spmv_kernels() {
  static constexpr SpmvKernel kKernels[] = {
      {"warp", "a warp a row, distances summed across lanes", spmv_warp},
      {"batched", "a row and eight vectors a thread", spmv_batched},
      {"shared", "a row a thread, the vector in shared memory", spmv_shared},
      {"basic", "a row a thread", spmv_basic},
  };
  return kKernels;
}

DeviceSparse::DeviceSparse(const MdcsrView& v)
    : values_(entries(v.values, v.nnz)),
      deltas_(entries(v.delta_indices, v.nnz)),
      row_pointers_(upload(v.row_pointers, v.rows + 1, "a sparse matrix")),
      scales_(upload(v.scales, v.rows, "a sparse matrix")) {
  matrix_ = {values_.get(), deltas_.get(), row_pointers_.get(),           scales_.get(),
             nullptr,       nullptr,       static_cast<uint32_t>(v.rows), static_cast<uint32_t>(v.cols)};
  if (v.prime_indices == nullptr) return;
  primes_ = entries(v.prime_indices, v.nnz);
  levels_ = upload(v.prime_levels, kPrimes, "a sparse matrix");
  matrix_.prime_indices = primes_.get();
  matrix_.prime_levels = levels_.get();
}

}  // namespace upg::cuda
