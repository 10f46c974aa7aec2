// THE list of devices that compression runs on.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "ops/accelerator.h"

namespace upg {

std::vector<std::string_view> compress_device_names();

/// nullptr for the CPU itself. The pool outlives it. Throws Error(kInvalidArgument) listing the known names,
/// Error(kUnsupported) with the reason if the device cannot be used here.
std::unique_ptr<Accelerator> open_accelerator(std::string_view name, ThreadPool& pool);

}  // namespace upg
