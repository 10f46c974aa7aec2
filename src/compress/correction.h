// Weights that make up for what compression has already done to the model before them.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "codec/codec.h"
#include "compress/calibrator.h"

namespace upg {

/// The matrix [rows, cols] to encode instead of `source`: W + (a W E[(o - x) x^T] + b E[(stream drift) x^T]) H^-1, that
/// is, W moved some way towards the least-squares solution that takes the compressed model's input x to the output
/// that the original has for its own input o (asymmetric calibration: Li et al. 2025, GPTAQ), and where the product is
/// added to the residual stream, to what the stream lacks (Zhang et al. 2025, Qronos, corrects for the same). The
/// drifts in `statistics` are given up on the way. To corrected [0, rows * cols), which grows if need be.
void corrected_weights(uint64_t rows, uint64_t cols, const RowSource& source, InputStatistics& statistics,
                       const ForEach& for_each, std::vector<float>& corrected);

}  // namespace upg
