// Llama 2 and 3, and the many that follow their layout.
#include "model/arch/common.h"

namespace upg {

Decoder load_llama(const ConfigReader& json, Weights& weights) {
  const Sizes s = read_sizes(json);
  LlamaTraits traits;
  traits.attention.qkv_bias = traits.attention.output_bias = json.boolean("attention_bias", false);
  traits.mlp_bias = json.boolean("mlp_bias", false);
  return read_llama(json, weights, s, traits, {});
}

}  // namespace upg
