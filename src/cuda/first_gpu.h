// The GPU that this program uses: the first one.
#pragma once

#include "cuda/memory.h"

namespace upg::cuda {

inline cudaError_t count_gpus(int* count) {
  *count = 0;
  const cudaError_t status = cudaGetDeviceCount(count);
  if (status != cudaSuccess) cudaGetLastError();
  return status;
}

/// Whether it has Hopper's warpgroup instructions, and this build uses them.
bool has_warpgroups(const cudaDeviceProp& gpu);

inline bool has_gpu() {
  int count = 0;
  return count_gpus(&count) == cudaSuccess && count > 0;
}

/// Chooses it and gives its properties. Throws kUnsupported where there is none, or its compute capability is below
/// major.minor; `what` needs it.
inline cudaDeviceProp use_first_gpu(int major, int minor, const char* what) {
  int count = 0;
  const cudaError_t status = count_gpus(&count);
  if (status != cudaSuccess || count == 0)
    fail(ErrorCode::kUnsupported, "no CUDA device was found{}{}", status == cudaSuccess ? "" : ": ",
         status == cudaSuccess ? "" : cudaGetErrorString(status));
  check(cudaSetDevice(0), "choosing the GPU");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "asking for the GPU's properties");
  if (10 * properties.major + properties.minor < 10 * major + minor)
    fail(ErrorCode::kUnsupported, "{} has compute capability {}.{}: {} needs {}.{}", properties.name, properties.major,
         properties.minor, what, major, minor);
  return properties;
}

}  // namespace upg::cuda
