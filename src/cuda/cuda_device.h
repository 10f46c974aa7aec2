// An NVIDIA GPU as a device.
#pragma once

#include <memory>

#include "model/timeline.h"

namespace upg::cuda {

/// Copies the model's weights to the first GPU, or those of its last layers where `options` say so. Throws
/// Error(kUnsupported) where there is no GPU, or these layers have something that the kernels do not, by name;
/// Error(kOutOfMemory) with the arithmetic.
std::unique_ptr<Device> open_device(Model& model, OpContext& context, const DeviceOptions& options);

}  // namespace upg::cuda
