// An NVIDIA GPU as a device.
#pragma once

#include <memory>
#include <string_view>

#include "model/timeline.h"
#include "upg/progress.h"

namespace upg::cuda {

/// Copies the model's weights to the first GPU. `fusion` is one of those of device_table.cc. Throws Error(kUnsupported)
/// where there is no GPU, or the model has something that the kernels do not, by name; Error(kOutOfMemory) with the
/// arithmetic.
std::unique_ptr<Device> open_device(Model& model, OpContext& context, std::string_view fusion,
                                    const Progress& progress);

}  // namespace upg::cuda
