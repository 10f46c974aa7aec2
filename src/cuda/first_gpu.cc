#include "cuda/first_gpu.h"

namespace upg::cuda {

bool has_warpgroups(const cudaDeviceProp& gpu) {
#ifdef UPG_CUDA_SM90A
  return gpu.major == 9 && gpu.minor == 0;
#else
  (void)gpu;
  return false;
#endif
}

}  // namespace upg::cuda
