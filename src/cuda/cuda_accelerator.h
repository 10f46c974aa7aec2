// An NVIDIA GPU for what compression does most of.
#pragma once

#include <memory>

#include "base/thread_pool.h"
#include "ops/accelerator.h"

namespace upg::cuda {

/// The first GPU. Throws Error(kUnsupported) where there is none, or one below compute capability 8.0.
std::unique_ptr<Accelerator> open_accelerator(ThreadPool& pool);

}  // namespace upg::cuda
