// Which codec each matrix gets, so that all together meet an exact number of bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace upg {

struct Codec;

struct MatrixShape {
  std::string name;
  uint64_t rows;
  uint64_t cols;
};

/// Without calibration data: the most bits that all matrices can have alike, then one bit more for as many as fit,
/// those first whose relative error falls most for its bytes (the smallest, every matrix counting alike). Returns one
/// codec a matrix, or nothing where even the fewest bits exceed `budget` bytes; `fewest` is set to those bytes.
std::optional<std::vector<const Codec*>> allocate(std::span<const MatrixShape> matrices, uint64_t budget,
                                                  uint64_t* fewest);

}  // namespace upg
