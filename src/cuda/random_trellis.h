// A trellis matrix of codes drawn at random, on the device.
#pragma once

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "cuda/level_sums.h"
#include "cuda/memory.h"
#include "cuda/program.h"

namespace upg::cuda {

class RandomTrellis {
 public:
  /// All rows have this scale; block steps are 5, 6, ... 20.
  RandomTrellis(uint32_t rows, uint32_t cols, uint32_t bits, float row_scale) {
    w_.rows = rows;
    w_.cols = cols;
    w_.panels = (rows + 15) / 16;
    w_.blocks = (cols + 31) / 32;
    w_.steps = (w_.blocks + kStepBlocks - 1) / kStepBlocks;
    w_.bits = bits;
    int8_t table[2][16] = {};
    for (int h = 0; h < 1 << bits; ++h) {
      table[0][h] = static_cast<int8_t>(h * 200 / (1 << bits) - 90);
      table[1][h] = static_cast<int8_t>(table[0][h] - 10);
    }
    std::memcpy(w_.table, table, sizeof w_.table);
    set_sums(&w_);
    for (int i = 0; i < 16; ++i) w_.block_steps[i] = static_cast<float>(5 + i);
    std::vector<float> scales(16 * w_.panels);
    std::fill_n(scales.begin(), rows, row_scale);
    scales_ = upload(scales.data(), scales.size(), "weights");
    w_.row_scales = scales_.get();
    std::vector<uint32_t> codes(bytes() / 4);
    std::mt19937 random(bits);
    for (uint32_t& code : codes) code = static_cast<uint32_t>(random());
    codes_ = upload(codes.data(), codes.size(), "weights");
    w_.data = reinterpret_cast<const uint8_t*>(codes_.get());
  }
  const TrellisMatrix& matrix() const { return w_; }
  uint64_t bytes() const { return uint64_t{w_.panels} * w_.steps * step_bytes(w_.bits); }

 private:
  TrellisMatrix w_{};
  DeviceMemory<float> scales_;
  DeviceMemory<uint32_t> codes_;
};

}  // namespace upg::cuda
