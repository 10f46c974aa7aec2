#include "model/blocks/experts.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace upg {
namespace {

// The indices of the `n` largest of `values`, the lower of equals first.
std::vector<uint32_t> largest(const std::vector<float>& values, uint64_t n) {
  std::vector<uint32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0u);
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(n), order.end(), [&](uint32_t a, uint32_t b) {
    // A NaN counts as least: the order must be one whatever the weights are.
    const float x = std::isnan(values[a]) ? -INFINITY : values[a], y = std::isnan(values[b]) ? -INFINITY : values[b];
    return x != y ? x > y : a < b;
  });
  order.resize(n);
  return order;
}

std::vector<float> scores_of(const Routing& routing, const float* logits) {
  std::vector<float> scores(logits, logits + routing.experts);
  if (routing.sigmoid) {
    for (float& s : scores) s = 1 / (1 + std::exp(-s));
    return scores;
  }
  const float top = *std::max_element(scores.begin(), scores.end());
  float total = 0;
  for (float& s : scores) total += s = std::exp(s - top);
  for (float& s : scores) s /= total;
  return scores;
}

// Experts outside the best groups lose their place: their score for the choice becomes -infinity.
void keep_groups(const Routing& routing, std::vector<float>& choice) {
  const uint64_t size = routing.experts / routing.groups;
  std::vector<float> group_scores;
  for (uint64_t g = 0; g < routing.groups; ++g) {
    const std::vector<float> group(choice.begin() + static_cast<ptrdiff_t>(g * size),
                                   choice.begin() + static_cast<ptrdiff_t>((g + 1) * size));
    float sum = 0;
    for (uint32_t best : largest(group, std::min(routing.best_of_group, size))) sum += group[best];
    group_scores.push_back(sum);
  }
  std::vector<bool> kept(routing.groups);
  for (uint32_t g : largest(group_scores, routing.chosen_groups)) kept[g] = true;
  for (uint64_t e = 0; e < routing.experts; ++e)
    if (!kept[e / size]) choice[e] = -INFINITY;
}

}  // namespace

std::vector<std::pair<uint32_t, float>> route(const Routing& routing, const float* logits) {
  const std::vector<float> scores = scores_of(routing, logits);
  std::vector<float> choice = scores;
  for (size_t e = 0; e < routing.choice_bias.size(); ++e) choice[e] += routing.choice_bias[e];
  if (routing.groups > 1) keep_groups(routing, choice);
  std::vector<uint32_t> chosen = largest(choice, routing.chosen);
  float total = 0;
  for (uint32_t e : chosen) total += scores[e];
  const float scale = routing.normalize ? routing.scale / (total + 1e-20f) : routing.scale;
  std::sort(chosen.begin(), chosen.end());
  std::vector<std::pair<uint32_t, float>> weights;
  for (uint32_t e : chosen) weights.emplace_back(e, scores[e] * scale);
  return weights;
}

void run_experts(OpContext& context, const Experts& mixture, const float* x, uint64_t n_tokens, Activations activations,
                 BlockMemory& memory, float* out) {
  const uint64_t hidden = mixture.router.cols(), n_experts = mixture.routing.experts;
  std::vector<float> logits(n_tokens * n_experts);
  // In float: a rounded input may send a token to other experts.
  mixture.router.apply(context, x, n_tokens, Activations::kFloat, logits.data());
  std::vector<std::vector<uint32_t>> tokens(n_experts);
  std::vector<std::vector<float>> weights(n_experts);
  for (uint64_t t = 0; t < n_tokens; ++t) {
    for (const auto& [expert, weight] : route(mixture.routing, &logits[t * n_experts])) {
      tokens[expert].push_back(static_cast<uint32_t>(t));
      weights[expert].push_back(weight);
    }
  }

  std::memset(out, 0, n_tokens * hidden * sizeof *out);
  for (uint64_t e = 0; e < n_experts; ++e) {
    const uint64_t n = tokens[e].size();
    if (n == 0 && !context.hook) continue;  // a hook wants to see every product
    memory.gathered.resize(n * hidden);
    memory.scattered.resize(n * hidden);
    for (uint64_t i = 0; i < n; ++i)
      std::memcpy(&memory.gathered[i * hidden], x + tokens[e][i] * hidden, hidden * sizeof *x);
    context.routed = tokens[e];
    run_mlp(context, mixture.experts[e], memory.gathered.data(), n, activations, memory, memory.scattered.data());
    for (uint64_t i = 0; i < n; ++i)
      for (uint64_t c = 0; c < hidden; ++c)
        out[tokens[e][i] * hidden + c] += weights[e][i] * memory.scattered[i * hidden + c];
  }
  context.routed = {};
  if (!mixture.shared) return;

  memory.scattered.resize(n_tokens * hidden);
  run_mlp(context, *mixture.shared, x, n_tokens, activations, memory, memory.scattered.data());
  std::vector<float> gate(n_tokens, 1.0f);
  if (mixture.shared_gate) {
    mixture.shared_gate->apply(context, x, n_tokens, Activations::kFloat, gate.data());
    for (float& g : gate) g = 1 / (1 + std::exp(-g));
  }
  for (uint64_t t = 0; t < n_tokens; ++t)
    for (uint64_t c = 0; c < hidden; ++c) out[t * hidden + c] += gate[t] * memory.scattered[t * hidden + c];
}

}  // namespace upg
