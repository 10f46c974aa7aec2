#include "model/layer_split.h"

#include <algorithm>

namespace upg {
namespace {

KvShape first_of(const KvShape& shape, uint64_t layers) {
  return {{shape.layers.begin(), shape.layers.begin() + static_cast<ptrdiff_t>(layers)}};
}

}  // namespace

uint64_t first_gpu_layer(std::optional<uint64_t> gpu_layers, uint64_t layers) {
  return layers - std::min(gpu_layers.value_or(layers), layers);
}

uint64_t last_layers_that_fit(std::span<const uint64_t> layer_bytes, uint64_t fixed, uint64_t free) {
  if (fixed > free) return 0;
  uint64_t left = free - fixed, n = 0;
  for (auto bytes = layer_bytes.rbegin(); bytes != layer_bytes.rend() && *bytes <= left; ++bytes) {
    left -= *bytes;
    ++n;
  }
  return n;
}

FirstLayers::FirstLayers(Model& model, OpContext& context, uint64_t layers, uint64_t capacity, const KvType& kv,
                         Activations activations)
    : model_(model),
      context_(context),
      layers_(layers),
      activations_(activations),
      cache_(first_of(model.shape().kv, layers), capacity, kv) {}

const float* FirstLayers::forward(std::span<const int32_t> tokens) {
  return model_.forward(context_, tokens, activations_, Batch(cache_, tokens.size()), layers_);
}

}  // namespace upg
