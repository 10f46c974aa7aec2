// Qwen3: Llama with a norm on each head of queries and keys.
#include "model/arch/common.h"

namespace upg {

Decoder load_qwen3(const ConfigReader& json, Weights& weights) {
  const Sizes s = read_sizes(json, false, 128);
  const bool bias = json.boolean("attention_bias", false);
  return read_llama(json, weights, s, {.attention = {.qkv_bias = bias, .output_bias = bias, .head_norms = true}},
                    qwen_windows(json, s.layers));
}

}  // namespace upg
