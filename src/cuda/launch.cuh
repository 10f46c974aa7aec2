// Launching kernels one after the other.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "cuda/batch.h"

namespace upg::cuda {

/// Waits until the kernel before this one in the stream is done and its stores are visible. What comes before this runs
/// while that one ends, where chain() started it; everything that another kernel of the stream reads or writes comes
/// after it.
__device__ __forceinline__ void wait_for_kernel_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// The next kernel's blocks may start where there is room for them.
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#if __CUDA_ARCH__ >= 900
/// All threads of a cluster's blocks call both: what was written before the first, all see after the second.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
#endif

/// Enqueues a kernel that calls wait_for_kernel_before(); `cluster` neighbours in x share their memory, more than one
/// only where the queue is chained.
template <typename... Parameters, typename... Arguments>
cudaError_t chain(Queue queue, void (*kernel)(Parameters...), dim3 grid, dim3 block, uint32_t shared_bytes,
                  uint32_t cluster, Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = queue.stream;
  cudaLaunchAttribute attributes[2];
  config.attrs = attributes;
  if (queue.chained) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs].val.clusterDim.x = cluster;
    attributes[config.numAttrs].val.clusterDim.y = 1;
    attributes[config.numAttrs++].val.clusterDim.z = 1;
  }
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace upg::cuda
