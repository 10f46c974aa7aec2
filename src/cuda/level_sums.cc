#include "cuda/level_sums.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace upg::cuda {
namespace {

// {x, y} so that a = x + (y < 0 ? -1 : 0) and b = y + (x < 0 ? -1 : 0), of int8; nothing where there are none.
std::optional<std::pair<int, int>> each_with_others_sign(int a, int b) {
  const auto sign = [](int x) { return x < 0 ? -1 : 0; };
  for (const int of_y : {0, -1}) {
    for (const int of_x : {0, -1}) {
      const int x = a - of_y, y = b - of_x;
      if (sign(x) == of_x && sign(y) == of_y && std::max(x, y) <= 127) return std::pair(x, y);
    }
  }
  return std::nullopt;
}

void put(uint32_t (&bytes)[2], unsigned i, int value) {
  bytes[i / 4] |= static_cast<uint32_t>(static_cast<uint8_t>(value)) << (8 * (i % 4));
}

}  // namespace

void set_sums(TrellisMatrix* w) {
  const auto level = [&](unsigned s, unsigned h) { return static_cast<int8_t>(w->table[s][h / 4] >> (8 * (h % 4))); };
  std::fill_n(w->extra, 2, 0);
  std::fill_n(&w->sums[0][0], 8, 0);
  w->differences = 0;
  if (w->bits < 3) return;
  bool possible = true;
  // Two entries of which a lookup takes one and the sign of the other.
  const auto put_pair = [&](unsigned sum, unsigned i, int a, int b) {
    const auto entries = each_with_others_sign(a, b);
    possible &= entries.has_value();
    if (!entries) return;
    put(w->sums[sum], i, entries->first);
    put(w->sums[sum + 1], 7 - i, entries->second);
  };
  const auto difference = [&](unsigned h) {
    const int more = level(0, h) - level(1, h);
    possible &= more >= 0 && more <= 127;
    return more;
  };
  for (unsigned h = 0; h < 8; ++h) {
    if (w->bits == 3) {
      put(w->extra, h, difference(h));
      put_pair(0, h, level(0, h), level(1, h));
    } else {
      put_pair(0, h, level(1, h), level(1, h + 8));
      put_pair(2, h, difference(h), difference(h + 8));
    }
  }
  w->differences = possible;
}

}  // namespace upg::cuda
