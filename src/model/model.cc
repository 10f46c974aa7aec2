#include "model/model.h"

namespace upg {

void Model::forward(OpContext& context, std::span<const int32_t> tokens, Activations activations, KvCache& cache,
                    LogitsRange range, float* logits) {
  const uint64_t n = tokens.size();
  x_.resize(n * shape_.hidden_size);
  embed(context, tokens, x_.data());
  for (uint64_t i = 0; i < shape_.kv.layers; ++i) layer(context, i, n, activations, cache, x_.data());
  cache.set_length(cache.length() + n);
  if (range.begin == range.end) return;
  head(context, range.end - range.begin, activations, x_.data() + range.begin * shape_.hidden_size, logits);
}

}  // namespace upg
