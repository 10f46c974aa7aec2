// Qwen2 and Qwen2.5: Llama with biases on queries, keys and values; layers from max_window_layers on may have a window.
#include "model/arch/common.h"

namespace upg {

Decoder load_qwen2(const ConfigReader& json, Weights& weights) {
  const Sizes s = read_sizes(json);
  return read_llama(json, weights, s, {.attention = {.qkv_bias = true}}, qwen_windows(json, s.layers));
}

}  // namespace upg
