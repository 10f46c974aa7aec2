// The architectures that can be run: architectures.inc is the list, keyed by the name in config.json's
// "architectures".
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "model/config.h"
#include "model/model.h"
#include "model/weights.h"

namespace upg {

struct Architecture {
  std::string_view name;  // "Phi3ForCausalLM"
  /// Checks the whole configuration before any weight is touched. Throws Error(kUnsupported) naming the option.
  Decoder (*load)(const ConfigReader& config, Weights& weights);
};

std::span<const Architecture> architectures();

/// The model of `weights`, which must outlive it. Throws Error(kUnsupported) listing the known architectures,
/// Error(kInvalidFile) for a tensor that is missing, extra or of the wrong shape.
std::unique_ptr<Model> load_model(Weights& weights);

}  // namespace upg
