// MdCSR on the GPU, owned.
#pragma once

#include <span>
#include <string_view>

#include "codec/layout/mdcsr.h"
#include "cuda/memory.h"
#include "cuda/spmv.h"

namespace upg::cuda {

/// THE list of sparse kernels.
struct SpmvKernel {
  std::string_view name;
  std::string_view summary;
  Spmv* run;
};
std::span<const SpmvKernel> spmv_kernels();

class DeviceSparse {
 public:
  explicit DeviceSparse(const MdcsrView& view);
  const SparseMatrix& matrix() const { return matrix_; }

 private:
  DeviceMemory<int8_t> values_;
  DeviceMemory<uint8_t> deltas_;
  DeviceMemory<uint32_t> row_pointers_;
  DeviceMemory<float> scales_, levels_;
  DeviceMemory<uint16_t> primes_;
  SparseMatrix matrix_{};
};

}  // namespace upg::cuda
