// SmolLM3: Llama with every fourth layer not rotated at all (NoPE).
#include "model/arch/common.h"

namespace upg {

Decoder load_smollm3(const ConfigReader& json, Weights& weights) {
  const Sizes s = read_sizes(json, true);
  LlamaTraits traits;
  traits.attention.qkv_bias = traits.attention.output_bias = json.boolean("attention_bias", false);
  traits.mlp_bias = json.boolean("mlp_bias", false);
  // 1: rotated, 0: not, whatever the field's name says.
  const std::vector<uint64_t> rotated = json.integers("no_rope_layers", 2);
  const uint64_t interval = json.integer("no_rope_layer_interval", 1, 4096, 4);
  if (!rotated.empty() && rotated.size() != s.layers)
    json.unsupported("no_rope_layers", "must have one number a layer");
  require(json, "use_sliding_window", false);

  Decoder d = read_llama(json, weights, s, traits, {});
  d.rotary.push_back(Rotary{});
  for (uint64_t i = 0; i < s.layers; ++i) {
    const bool turns = rotated.empty() ? (i + 1) % interval != 0 : rotated[i] == 1;
    d.layers[i].rotary = turns ? 0 : 1;
  }
  return d;
}

}  // namespace upg
