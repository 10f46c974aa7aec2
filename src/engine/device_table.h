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
  std::string_view name;     // of --device
  std::string_view summary;  // one line for --help
  /// Model and context outlive the device. Throws Error(kUnsupported) with the reason if it cannot run here.
  std::unique_ptr<Device> (*open)(Model& model, OpContext& context, const EngineOptions& options);
};

std::span<const DeviceRow> device_rows();

/// Throws Error(kInvalidArgument) listing the known names.
const DeviceRow& find_device(std::string_view name);

}  // namespace upg
