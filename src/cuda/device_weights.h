// A decoder's weights on the GPU.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cuda/memory.h"
#include "cuda/plain_decoder.h"
#include "cuda/program.h"
#include "upg/progress.h"

namespace upg::cuda {

struct LayerWeights {
  const float *attention_norm, *mlp_norm;
  std::vector<TrellisMatrix> qkv, gate_up;  // one below the other
  TrellisMatrix output, down;
  const float *qkv_bias, *query_norm, *key_norm;  // nullptr where there are none
};

/// Rows of all parts.
uint32_t rows_of(const std::vector<TrellisMatrix>& parts);
/// Calls f for each matrix of a layer.
template <typename F>
void for_each_matrix(const LayerWeights& layer, F f) {
  for (const TrellisMatrix& w : layer.qkv) f(w);
  f(layer.output);
  for (const TrellisMatrix& w : layer.gate_up) f(w);
  f(layer.down);
}

class DeviceWeights {
 public:
  /// Copies from the mapped file through pinned memory while the copy before is on its way. Throws Error(kUnsupported)
  /// for a matrix that is not a trellis, by name; Error(kOutOfMemory) with the arithmetic and how many layers would
  /// fit.
  DeviceWeights(const PlainDecoder& decoder, OpContext& context, const Progress& progress);

  TrellisMatrix embedding{}, head{};  // no embedding where the decoder has none
  std::vector<LayerWeights> layers;
  const float* norm = nullptr;
  uint64_t bytes = 0;

 private:
  class Uploader;
  std::vector<DeviceMemory<uint8_t>> memory_;
};

}  // namespace upg::cuda
