// In place of the cuda device in builds without it.
#include "base/error.h"
#include "cuda/cuda_device.h"

namespace upg::cuda {

std::unique_ptr<Device> open_device(Model&, OpContext&, std::string_view, const Progress&) {
  fail(ErrorCode::kUnsupported, "this build has no CUDA: configure it with -DUPG_CUDA=ON, or run `./dev build cuda`");
}

}  // namespace upg::cuda
