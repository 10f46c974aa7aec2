// How much the model's predictions suffer from errors in each of its matrices.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "compress/staged_model.h"

namespace upg {

/// For each matrix by name: mean KL divergence in nats of the model's predictions from the original's when it alone is
/// rounded to 3 bits, without calibration. `sequences` as for Calibrator; `parallel` and `device` as EncodeOptions.
/// `tick(done, total)` may throw.
std::map<std::string, double> measure_sensitivity(StagedModel& model,
                                                  const std::vector<std::vector<int32_t>>& sequences,
                                                  const ForEach& parallel, TrellisDevice* device,
                                                  const std::function<void(uint64_t done, uint64_t total)>& tick);

}  // namespace upg
