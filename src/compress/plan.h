// What becomes of each matrix: its codec, so that all together meet the aim.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "base/tensor_view.h"
#include "codec/codec.h"
#include "upg/compress.h"

namespace upg {

struct MatrixPlan {
  const Codec* codec = nullptr;
  uint64_t residual_bytes = 0;           // for a residual plane
  std::optional<double> predicted_loss;  // nats of KL divergence, where sensitivities are known
};

/// Bytes of weight data that the options allow a model of so many parameters. Throws Error(kInvalidArgument).
uint64_t budget_bytes(const CompressOptions& options, uint64_t parameters);

/// A plan for every matrix within `budget` bytes. `sensitivity` by name, as measure_sensitivity() gives; empty: every
/// weight counts alike. `parameters` and `other_bytes` (of weights that are not matrices) are for the error where the
/// budget is too small: kInvalidArgument with the largest ratio that is possible.
std::map<std::string, MatrixPlan> plan_matrices(std::span<const TensorView* const> matrices,
                                                const std::map<std::string, double>& sensitivity, uint64_t budget,
                                                uint64_t parameters, uint64_t other_bytes);

}  // namespace upg
