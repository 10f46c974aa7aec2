// MdCSR times vectors on the GPU, in several ways: spmv_device.h lists them. codec/layout/mdcsr.h has the layout.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

namespace upg::cuda {

/// MdCSR on the device. Arrays of entries are followed by 4 more bytes, and begin at multiples of 4.
struct SparseMatrix {
  const int8_t* values;           // [nnz]
  const uint8_t* deltas;          // [nnz]
  const uint32_t* row_pointers;   // [rows + 1]
  const float* scales;            // [rows]
  const uint16_t* prime_indices;  // [nnz], or null
  const float* prime_levels;      // m(i) / 2 for i in [0, 10000), where prime_indices is not null
  uint32_t rows, cols;
};

// Each enqueues y[t] = W x[t]: x [n][cols], y [n][rows].
using Spmv = cudaError_t(const SparseMatrix& w, const float* x, uint32_t n, float* y, cudaStream_t stream);
Spmv spmv_warp, spmv_batched, spmv_shared, spmv_basic;

}  // namespace upg::cuda
