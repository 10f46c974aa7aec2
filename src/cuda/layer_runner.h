// A decoder's layer in float on the GPU, for compression: the numbers of Model::layer with float activations, within
// rounding.
#pragma once

#include <map>

#include "cuda/weight_copies.h"
#include "model/decoder.h"

namespace upg::cuda {

class LayerRunner {
 public:
  LayerRunner(WeightCopies& weights, Staging& staging, cudaStream_t stream)
      : weights_(weights), staging_(staging), stream_(stream) {}

  /// As Accelerator::run_layer.
  bool run(const Decoder& decoder, uint64_t index, uint64_t capacity, uint64_t n_tokens, float* x, WeightHook& hook);

 private:
  struct Pass;
  const float* vector(const std::vector<float>& values);
  const float* angles(const Rope& rope, uint64_t n_tokens);

  WeightCopies& weights_;
  Staging& staging_;
  cudaStream_t stream_;
  Buffer<float> x_, normed_, wide_, inner_, result_, angles_;
  std::vector<float> seen_;
  std::map<const float*, DeviceMemory<float>> vectors_;  // norms and biases, by where the model has them
  const Rope* angles_of_ = nullptr;
  uint64_t angles_tokens_ = 0;
};

}  // namespace upg::cuda
