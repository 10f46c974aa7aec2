// From a decoder to the list of stages that one token runs through.
#pragma once

#include <vector>

#include "cuda/device_weights.h"
#include "cuda/pdvm.h"

namespace upg::cuda {

/// Keys and values on the device: [layers][kv_heads][capacity][head_dim], f16 or int8 with scales.
struct DeviceCache {
  DeviceMemory<uint8_t> keys, values;
  DeviceMemory<float> key_scales, value_scales;
  uint64_t capacity = 0, layer_bytes = 0, layer_vectors = 0;
  bool int8 = false;
};

/// What stages leave for each other; sessions take turns, so one set serves them all.
struct DeviceBuffers {
  DeviceMemory<float> streams[2], logits, partial;
  DeviceMemory<float> tagged;  // where the next five are
  uint64_t tagged_floats = 0;
  float *qkv = nullptr, *mixed = nullptr, *output = nullptr, *gate_up = nullptr, *down = nullptr;
  DeviceMemory<Best> best;
  DeviceMemory<uint32_t> tickets;
};

/// How many blocks a token runs on, at most one a multiprocessor: all of them have rows of each layer's output and down
/// products, without which one could lag behind the others by a layer (tagged.cuh).
uint32_t choose_blocks(const DeviceWeights& weights, uint32_t multiprocessors);

DeviceBuffers make_buffers(const PlainDecoder& decoder, const DeviceWeights& weights, uint32_t blocks);

struct Program {
  std::vector<Stage> stages;
  std::vector<Reading> readings;     // of the products among them, in their order
  std::vector<uint32_t> layer_ends;  // one past the last stage of each layer
  uint32_t head = 0;                 // the product that gives logits; stages after it choose a token

  StageRange range(uint32_t begin, uint32_t end) const;
};

/// Without an embedding the residual stream is in buffers.streams[0] before each token.
Program build_program(const PlainDecoder& decoder, const DeviceWeights& weights, const DeviceBuffers& buffers,
                      const DeviceCache& cache, const float* angles, uint32_t blocks);

/// Products of the same input, tagged(x, 1) [cols], one after the other, for measuring, dealt out as a model's:
/// y [slices][16 panels], of up to kMostSlices, receives the last one's parts.
Program build_products(const std::vector<TrellisMatrix>& matrices, uint32_t blocks, const float* x, float* y);

/// How the attention of the token at `position` is dealt out to so many blocks.
AttendShape attend_shape(const AttentionShape& attention, uint64_t position, uint32_t blocks);

/// What a block needs of shared memory to run the stages.
Machine size_machine(const std::vector<Stage>& stages, uint32_t blocks);

}  // namespace upg::cuda
