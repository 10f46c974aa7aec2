#include "cuda/layer_runner.h"

#include <cmath>

#include "cuda/dense.h"
#include "cuda/layer_ops.h"

namespace upg::cuda {
namespace {

constexpr uint64_t kMostHeadDim = 256;  // of attend_causally()

struct GateRow {
  std::string_view name;  // of glu_names()
  Gate gate;
};
constexpr GateRow kGates[] = {{"silu", Gate::kSilu}, {"gelu", Gate::kGelu}, {"gelu_tanh", Gate::kGeluTanh}};

const GateRow* find_gate(std::string_view name) {
  for (const GateRow& row : kGates)
    if (row.name == name) return &row;
  return nullptr;
}

}  // namespace

// One run: where it stops, nothing after it is computed.
struct LayerRunner::Pass {
  LayerRunner& r;
  WeightHook& hook;
  uint64_t n;

  // y[t] = W x[t] + bias: x [n, cols()], y [n, rows()]. False: a product was not wanted.
  bool multiply(const Projection& projection, const float* x, float* y) {
    const uint64_t width = projection.rows();
    uint64_t row = 0;
    for (const Linear& part : projection.parts()) {
      const float* host = nullptr;
      if (hook.sees(part)) {
        r.seen_.resize(n * part.cols());
        r.staging_.from_device(r.seen_.data(), 4 * part.cols(), x, 4 * part.cols(), 4 * part.cols(), n);
        host = r.seen_.data();
      }
      const Linear* used = hook.before(part, host, n);
      if (used == nullptr) return false;
      const Gemm g{x,
                   r.weights_.of(*used),
                   y + row,
                   narrow(n),
                   narrow(part.rows()),
                   narrow(part.cols()),
                   part.cols(),
                   WeightCopies::stride(part.cols()),
                   width};
      check(multiply_dense(g, Precision::kTf32, r.stream_), "multiplying");
      row += part.rows();
    }
    if (!projection.bias().empty())
      check(add_bias(y, width, r.vector(projection.bias()), narrow(n), narrow(width), r.stream_), "multiplying");
    return true;
  }
  void norm(const float* x, uint64_t stride, const std::vector<float>& weight, float epsilon, uint64_t heads,
            float* y) {
    check(norm_rows(x, stride, r.vector(weight), epsilon, narrow(n), narrow(heads), narrow(weight.size()), y, stride,
                    r.stream_),
          "a norm");
  }
};

const float* LayerRunner::vector(const std::vector<float>& values) {
  DeviceMemory<float>& memory = vectors_[values.data()];
  if (!memory) memory = upload(values.data(), values.size(), "norms");
  return memory.get();
}

const float* LayerRunner::angles(const Rope& rope, uint64_t n_tokens) {
  const uint64_t dim = rope.rotary_dim();
  float* device = angles_.at_least(n_tokens * dim, "angles");
  if (angles_of_ == &rope && n_tokens <= angles_tokens_) return device;
  std::vector<float> table(n_tokens * dim);
  for (uint64_t p = 0; p < n_tokens; ++p) rope.angles(p, table.data() + p * dim);
  staging_.to_device(device, 4 * dim, table.data(), 4 * dim, 4 * dim, n_tokens);
  angles_of_ = &rope;
  angles_tokens_ = n_tokens;
  return device;
}

bool LayerRunner::run(const Decoder& d, uint64_t index, uint64_t capacity, uint64_t n_tokens, float* x,
                      WeightHook& hook) {
  const DecoderLayer& layer = d.layers[index];
  const auto* attention = std::get_if<SelfAttention>(&layer.attention);
  const auto* mlp = std::get_if<GatedMlp>(&layer.mlp);
  const GateRow* gate_row = mlp ? find_gate(mlp->activation) : nullptr;
  if (!attention || !gate_row) return false;
  const AttentionShape& a = attention->shape;
  const uint64_t hidden = d.hidden, inner = mlp->down.cols(), width = attention->qkv.rows(),
                 mixed = a.heads * a.head_dim;
  if (a.head_dim > kMostHeadDim || hidden % 4 != 0 || inner % 4 != 0 || mixed % 4 != 0) return false;

  Pass pass{*this, hook, n_tokens};
  float* stream = x_.at_least(n_tokens * hidden, "tokens");
  float* normed = normed_.at_least(n_tokens * hidden, "tokens");
  float* result = result_.at_least(n_tokens * hidden, "tokens");
  float* wide = wide_.at_least(n_tokens * std::max(width, 2 * inner), "tokens");
  float* between = inner_.at_least(n_tokens * std::max(mixed, inner), "tokens");
  staging_.to_device(stream, 4 * hidden, x, 4 * hidden, 4 * hidden, n_tokens);
  const auto add = [&](const std::vector<float>& post_norm) {
    if (!post_norm.empty()) pass.norm(result, hidden, post_norm, d.epsilon, 1, result);
    check(add_scaled(result, hidden, 1, narrow(n_tokens), narrow(hidden), stream, hidden, stream_), "adding");
  };
  const auto run_attention = [&] {
    pass.norm(stream, hidden, layer.attention_norm, d.epsilon, 1, normed);
    if (!pass.multiply(attention->qkv, normed, wide)) return false;
    float* keys = wide + mixed;
    if (!attention->query_norm.empty()) pass.norm(wide, width, attention->query_norm, d.epsilon, a.heads, wide);
    if (!attention->key_norm.empty()) pass.norm(keys, width, attention->key_norm, d.epsilon, a.kv_heads, keys);
    const Rope& rope = d.rotary[layer.rotary].of_capacity(capacity);
    check(turn_heads(wide, width, angles(rope, n_tokens), narrow(rope.rotary_dim()), rope.interleaved(),
                     narrow(n_tokens), narrow(a.heads + a.kv_heads), narrow(a.head_dim), stream_),
          "rotation");
    const CausalShape shape{narrow(a.heads),
                            narrow(a.kv_heads),
                            narrow(a.head_dim),
                            narrow(a.window),
                            a.scale != 0 ? a.scale : 1.0f / std::sqrt(static_cast<float>(a.head_dim)),
                            a.softcap};
    check(attend_causally(shape, wide, narrow(n_tokens), between, stream_), "attention");
    return pass.multiply(attention->output, between, result);
  };
  const auto run_mlp = [&] {
    pass.norm(stream, hidden, layer.mlp_norm, d.epsilon, 1, normed);
    if (!pass.multiply(mlp->gate_up, normed, wide)) return false;
    check(gate(gate_row->gate, wide, narrow(n_tokens), narrow(inner), between, stream_), "a gate");
    return pass.multiply(mlp->down, between, result);
  };
  if (run_attention()) {
    add(layer.attention_post_norm);
    if (run_mlp()) add(layer.mlp_post_norm);
  }
  staging_.from_device(x, 4 * hidden, stream, 4 * hidden, 4 * hidden, n_tokens);
  return true;
}

}  // namespace upg::cuda
