// Which codec each matrix gets, so that all together meet a number of bytes at the least loss.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace upg {

/// One way to store a matrix: what it costs and what it is thought to lose.
struct Choice {
  uint64_t bytes;
  double loss;
};

/// For each matrix the index of its choice, from lists in ascending order of bytes: close to the least sum of losses
/// within `budget` bytes. Nothing where even the cheapest exceed it; `fewest` is set to what those cost.
std::optional<std::vector<size_t>> allocate(std::span<const std::vector<Choice>> matrices, uint64_t budget,
                                            uint64_t* fewest);

}  // namespace upg
