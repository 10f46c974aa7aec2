// Memory of the GPU, and of the host where the GPU copies from and to. Freed with the object.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "base/error.h"

namespace upg::cuda {

/// Throws Error with CUDA's own words.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  fail(status == cudaErrorMemoryAllocation ? ErrorCode::kOutOfMemory : ErrorCode::kIo, "CUDA: {}: {}", what,
       cudaGetErrorString(status));
}

struct FreeDevice {
  void operator()(void* p) const { cudaFree(p); }
};
struct FreeHost {
  void operator()(void* p) const { cudaFreeHost(p); }
};
template <typename T>
using DeviceMemory = std::unique_ptr<T[], FreeDevice>;
template <typename T>
using PinnedMemory = std::unique_ptr<T[], FreeHost>;

template <typename T>
DeviceMemory<T> allocate_device(uint64_t n, const char* what) {
  void* p = nullptr;
  const uint64_t bytes = (n ? n : 1) * sizeof(T);
  const cudaError_t status = cudaMalloc(&p, bytes);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    fail(ErrorCode::kOutOfMemory, "the GPU has no room for {}: {:.2f} GiB wanted, {:.2f} of {:.2f} GiB are free", what,
         static_cast<double>(bytes) / 0x1p30, static_cast<double>(free) / 0x1p30, static_cast<double>(total) / 0x1p30);
  }
  check(status, what);
  return DeviceMemory<T>(static_cast<T*>(p));
}
/// Sets bytes, and waits: other streams do not wait for the one that does it.
inline void set_bytes(void* p, int value, uint64_t n, const char* what) {
  check(cudaMemset(p, value, n), what);
  check(cudaDeviceSynchronize(), what);
}
template <typename T>
DeviceMemory<T> allocate_zeros(uint64_t n, const char* what) {
  DeviceMemory<T> memory = allocate_device<T>(n, what);
  set_bytes(memory.get(), 0, n * sizeof(T), what);
  return memory;
}
template <typename T>
PinnedMemory<T> allocate_pinned(uint64_t n, const char* what) {
  void* p = nullptr;
  check(cudaMallocHost(&p, (n ? n : 1) * sizeof(T)), what);
  return PinnedMemory<T>(static_cast<T*>(p));
}
template <typename T>
DeviceMemory<T> upload(const T* from, uint64_t n, const char* what) {
  DeviceMemory<T> memory = allocate_device<T>(n, what);
  check(cudaMemcpy(memory.get(), from, n * sizeof(T), cudaMemcpyHostToDevice), what);
  check(cudaDeviceSynchronize(), what);
  return memory;
}

}  // namespace upg::cuda
