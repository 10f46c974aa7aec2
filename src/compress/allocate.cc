#include "compress/allocate.h"

#include <algorithm>
#include <numeric>

#include "codec/trellis.h"

namespace upg {
namespace {

constexpr const Codec* kLadder[] = {&kTrellis2Codec, &kTrellis3Codec, &kTrellis4Codec};

uint64_t bytes_of(const Codec& codec, const MatrixShape& m) { return codec.stored_bytes(m.rows, m.cols, 0); }

}  // namespace

std::optional<std::vector<const Codec*>> allocate(std::span<const MatrixShape> matrices, uint64_t budget,
                                                  uint64_t* fewest) {
  auto total = [&](const Codec& codec) {
    uint64_t sum = 0;
    for (const MatrixShape& m : matrices) sum += bytes_of(codec, m);
    return sum;
  };
  *fewest = total(*kLadder[0]);
  if (*fewest > budget) return std::nullopt;
  size_t level = 0;
  while (level + 1 < std::size(kLadder) && total(*kLadder[level + 1]) <= budget) ++level;
  std::vector<const Codec*> chosen(matrices.size(), kLadder[level]);
  if (level + 1 == std::size(kLadder)) return chosen;

  uint64_t left = budget - total(*kLadder[level]);
  const Codec& better = *kLadder[level + 1];
  std::vector<size_t> order(matrices.size());
  std::iota(order.begin(), order.end(), size_t{0});
  auto cost = [&](size_t i) { return bytes_of(better, matrices[i]) - bytes_of(*kLadder[level], matrices[i]); };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return cost(a) < cost(b); });
  for (size_t i : order) {
    if (cost(i) > left) break;
    left -= cost(i);
    chosen[i] = &better;
  }
  return chosen;
}

}  // namespace upg
