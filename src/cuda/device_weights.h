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
  TrellisMatrix qkv, output, gate_up, down;
};

class DeviceWeights {
 public:
  /// Copies from the mapped file through pinned memory while the copy before is on its way. Throws Error(kUnsupported)
  /// for a matrix that is not a trellis, by name.
  DeviceWeights(const PlainDecoder& decoder, OpContext& context, const Progress& progress);

  TrellisMatrix embedding, head;
  std::vector<LayerWeights> layers;
  const float* norm = nullptr;
  uint64_t bytes = 0;

 private:
  class Uploader;
  std::vector<DeviceMemory<uint8_t>> memory_;
};

}  // namespace upg::cuda
