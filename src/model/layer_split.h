// A model whose last layers run on a GPU: what the CPU does before them, and how many layers fit.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "model/model.h"

namespace upg {

/// The first of the last `gpu_layers` of so many layers; 0, so that all are among them, where they are not given or as
/// many as there are.
uint64_t first_gpu_layer(std::optional<uint64_t> gpu_layers, uint64_t layers);

/// The largest k for which the last k of `layer_bytes` fit `free` bytes together with `fixed` bytes, which are there in
/// any case; 0 where not even those fit.
uint64_t last_layers_that_fit(std::span<const uint64_t> layer_bytes, uint64_t fixed, uint64_t free);

/// The embedding and the first layers on the CPU, with the keys and values of one timeline.
class FirstLayers {
 public:
  /// Model and context outlive it. `layers`: at least 1. Throws Error(kOutOfMemory) as KvCache.
  FirstLayers(Model& model, OpContext& context, uint64_t layers, uint64_t capacity, const KvType& kv,
              Activations activations);

  /// Runs `tokens` (valid ids, at least one) at the next positions, for which there is room. Returns the residual
  /// stream [tokens, hidden_size] after the last of these layers, valid until the model runs again.
  const float* forward(std::span<const int32_t> tokens);

  // As of Timeline.
  uint64_t set_length(uint64_t length) { return cache_.set_length(length); }
  uint64_t bytes_read_at(uint64_t position) const { return cache_.bytes_read_at(position); }
  void fill(uint64_t n) { cache_.fill(n); }

 private:
  Model& model_;
  OpContext& context_;
  uint64_t layers_;
  Activations activations_;
  KvCache cache_;
};

}  // namespace upg
