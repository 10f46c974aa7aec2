#include "cuda/weight_copies.h"

#include "base/checked.h"
#include "codec/dense.h"
#include "cuda/dense.h"

namespace upg::cuda {

const float* WeightCopies::of(const Linear& linear) {
  const auto it = copies_.find(&linear);
  if (it != copies_.end()) {
    it->second.used = ++clock_;
    return it->second.memory.get();
  }
  const uint64_t rows = linear.rows(), cols = linear.cols(), stride = WeightCopies::stride(cols);
  Copy copy{allocate(rows * stride, "weights"), 4 * rows * stride, ++clock_};
  const Matrix& matrix = linear.matrix();
  const bool bf16 = matrix.codec == &kBf16Codec, f16 = matrix.codec == &kF16Codec;
  if (bf16 || f16) {
    uint16_t* halves = halves_.at_least(rows * cols, "weights");
    staging_.to_device(halves, 2 * cols, static_cast<const DenseView*>(matrix.layout.get())->data, 2 * cols, 2 * cols,
                       rows);
    check(
        widen(halves, bf16 ? Half::kBf16 : Half::kF16, narrow(rows), narrow(cols), copy.memory.get(), stride, stream_),
        "weights");
  } else {
    // Panels of the kernels are [cols][16].
    constexpr uint64_t kPanel = Linear::kPanelRows;
    constexpr uint64_t kRowsAtOnce = 1024;
    std::vector<float> decoded(std::min(rows, kRowsAtOnce) * cols);
    std::vector<std::vector<float>> panels(pool_.size());
    for (uint64_t begin = 0; begin < rows; begin += kRowsAtOnce) {
      const uint64_t end = std::min(begin + kRowsAtOnce, rows);
      pool_.each(ceil_div(end - begin, kPanel), [&](uint64_t p, unsigned worker) {
        std::vector<float>& panel = panels[worker];
        panel.resize(cols * kPanel);
        linear.unpack(begin / kPanel + p, panel.data());
        const uint64_t first = p * kPanel, n = std::min(kPanel, end - begin - first);
        for (uint64_t c = 0; c < cols; c += 16)
          for (uint64_t r = 0; r < n; ++r)
            for (uint64_t i = c; i < std::min(c + 16, cols); ++i)
              decoded[(first + r) * cols + i] = panel[i * kPanel + r];
      });
      staging_.to_device(copy.memory.get() + begin * stride, 4 * stride, decoded.data(), 4 * cols, 4 * cols,
                         end - begin);
    }
  }
  return copies_.emplace(&linear, std::move(copy)).first->second.memory.get();
}

void WeightCopies::forget(const Linear& linear) {
  const auto it = copies_.find(&linear);
  if (it == copies_.end()) return;
  check(cudaStreamSynchronize(stream_), "multiplying");
  copies_.erase(it);
}

DeviceMemory<float> WeightCopies::allocate(uint64_t n, const char* what) {
  make_room(4 * n);
  DeviceMemory<float> memory = allocate_zeros<float>(n, what);
  note_peak();
  return memory;
}

void WeightCopies::make_room(uint64_t bytes) {
  constexpr uint64_t kSpare = uint64_t{1} << 30;  // for what grows without asking
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "asking for free memory");
  while (free < bytes + kSpare && !copies_.empty()) {
    const auto oldest = std::min_element(copies_.begin(), copies_.end(),
                                         [](const auto& a, const auto& b) { return a.second.used < b.second.used; });
    free += oldest->second.bytes;
    forget(*oldest->first);
  }
}

void WeightCopies::note_peak() {
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) == cudaSuccess) peak_ = std::max<uint64_t>(peak_, total - free);
}

}  // namespace upg::cuda
