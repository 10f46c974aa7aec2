// THE list of devices that models run on.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "model/timeline.h"
#include "model/weights.h"
#include "upg/engine.h"

namespace upg {

struct DeviceRow {
  std::string_view name;                      // of --device
  std::string_view summary;                   // one line for --help
  std::span<const std::string_view> fusions;  // ways to launch a token's kernels, the fastest last; none: no choice
  bool takes_gpu_layers;                      // can leave a model's first layers to the CPU
  /// Model and context outlive the device. Throws Error(kUnsupported) with the reason if it cannot run here.
  std::unique_ptr<Device> (*open)(Model& model, OpContext& context, const DeviceOptions& options);
};

std::span<const DeviceRow> device_rows();

/// Throws Error(kInvalidArgument) listing the known names.
const DeviceRow& find_device(std::string_view name);

/// `fusion` if the row has it, the fastest if it is empty. Throws Error(kInvalidArgument) listing the row's.
std::string_view find_fusion(const DeviceRow& row, std::string_view fusion);

/// What the row's open() takes. Throws Error(kInvalidArgument) for a fusion or a number of layers that it cannot have.
DeviceOptions device_options(const DeviceRow& row, const EngineOptions& options);

}  // namespace upg
