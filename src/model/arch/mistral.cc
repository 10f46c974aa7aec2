// Mistral: Llama with a sliding window in all layers, or none.
#include "model/arch/common.h"

namespace upg {

Decoder load_mistral(const ConfigReader& json, Weights& weights) {
  const Sizes s = read_sizes(json);
  const uint64_t window = json.integer("sliding_window", 0, uint64_t{1} << 32, 0);
  return read_llama(json, weights, s, {}, std::vector<uint64_t>(s.layers, window));
}

}  // namespace upg
