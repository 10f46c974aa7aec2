// In place of the cuda device in builds without it.
#include "base/error.h"
#include "cuda/cuda_accelerator.h"
#include "cuda/cuda_device.h"
#include "cuda/kernel_bench.h"

namespace upg::cuda {

namespace {

[[noreturn]] void refuse() {
  fail(ErrorCode::kUnsupported, "this build has no CUDA: configure it with -DUPG_CUDA=ON, or run `./dev build cuda`");
}

}  // namespace

std::unique_ptr<Device> open_device(Model&, OpContext&, const DeviceOptions&) { refuse(); }
std::unique_ptr<Accelerator> open_accelerator(ThreadPool&) { refuse(); }
std::vector<KernelTime> time_kernels(unsigned, const Progress&) { refuse(); }

}  // namespace upg::cuda
