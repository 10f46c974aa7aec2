// The decoders that the kernels of this folder run: one kind of layer throughout.
#pragma once

#include <cstdint>
#include <vector>

#include "model/decoder.h"

namespace upg::cuda {

struct PlainLayer {
  const std::vector<float>*attention_norm, *mlp_norm;
  std::vector<const Linear*> qkv, gate_up;  // one below the other; all but the last have multiples of 16 rows
  const Linear *output, *down;
  const std::vector<float>*qkv_bias, *query_norm, *key_norm;  // empty where there are none
};

/// Views into a Decoder, which must outlive it.
struct PlainDecoder {
  uint64_t hidden = 0, intermediate = 0, vocab = 0;
  AttentionShape attention;
  const Rotary* rotary = nullptr;
  float epsilon = 0;
  const Linear* embedding = nullptr;  // nullptr where the CPU has it, and the layers before these
  std::vector<PlainLayer> layers;
  const std::vector<float>* norm = nullptr;
  const Linear* head = nullptr;
};

/// Of layer `first` and those after it; the embedding only goes with all of them. Throws Error(kUnsupported) that names
/// what the kernels cannot do.
PlainDecoder plain_decoder(const Decoder& decoder, uint64_t first = 0);

}  // namespace upg::cuda
