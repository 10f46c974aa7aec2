#include "cuda/prompt_runner.h"

#include <algorithm>

namespace upg::cuda {
namespace {

constexpr uint32_t kStepColumns = 32 * kStepBlocks;

}  // namespace

PromptRunner::PromptRunner(const PlainDecoder& decoder, const DeviceWeights& weights, uint32_t shared_limit, bool wide,
                           uint32_t multiprocessors)
    : decoder_(decoder), weights_(weights), resources_{shared_limit, wide, multiprocessors, nullptr} {
  const char* what = "prompts";
  uint64_t widest_in = kStepColumns * weights.head.steps, widest_out = 1, residual = 0;
  for (const LayerWeights& layer : weights.layers) {
    widest_out = std::max<uint64_t>({widest_out, rows_of(layer.qkv), rows_of(layer.gate_up)});
    for_each_matrix(layer, [&](const TrellisMatrix& w) {
      widest_in = std::max<uint64_t>(widest_in, uint64_t{kStepColumns} * w.steps);
      if (w.residual_values) residual = std::max<uint64_t>(residual, w.cols);
    });
  }
  if (weights.head.residual_values) residual = std::max<uint64_t>(residual, weights.head.cols);
  host_tokens_ = allocate_pinned<int32_t>(kPromptTokens, what);
  tokens_ = allocate_zeros<int32_t>(kPromptTokens, what);
  stream_ = allocate_zeros<float>(kPromptTokens * decoder.hidden, what);
  wide_ = allocate_zeros<float>(kPromptTokens * widest_out, what);
  mixed_ = allocate_zeros<float>(kPromptTokens * decoder.attention.heads * decoder.attention.head_dim, what);
  scales_ = allocate_zeros<float>(kPromptTokens, what);
  logits_ = allocate_zeros<float>(kLogitRows * decoder.vocab, what);
  halves_ = allocate_zeros<uint16_t>(kPromptTokens * widest_in, what);
  plain_ = allocate_zeros<float>(kPromptTokens * residual, what);
  parts_ = allocate_zeros<float>(gemm_part_floats(multiprocessors), what);
  resources_.parts = parts_.get();
}

// y = W f(x), or += it.
void PromptRunner::multiply(const TrellisMatrix& w, Input input, const float* x, uint64_t stride, const float* norm,
                            uint32_t n, float* y, uint64_t y_stride, bool add, cudaStream_t stream) {
  const HalfTokens tokens{halves_.get(), scales_.get(), kStepColumns * w.steps};
  float* plain = w.residual_values ? plain_.get() : nullptr;
  check(prepare_tokens(input, x, stride, norm, decoder_.epsilon, w.cols, n, tokens, plain, stream), "preparing tokens");
  check(multiply_tokens(w, tokens, n, y, y_stride, add, resources_, stream), "multiplying tokens");
  if (plain) check(add_residual_tokens(w, plain, n, y, y_stride, stream), "multiplying tokens");
}

void PromptRunner::run(std::span<const int32_t> tokens, const float* x, uint64_t position,
                       const std::vector<Stage>& stages, cudaStream_t stream) {
  const auto n = static_cast<uint32_t>(tokens.size());
  const auto first = static_cast<uint32_t>(position);
  check(cudaStreamSynchronize(stream), "running a prompt");  // the last one may still read its tokens
  std::copy(tokens.begin(), tokens.end(), host_tokens_.get());
  check(cudaMemcpyAsync(tokens_.get(), host_tokens_.get(), n * sizeof(int32_t), cudaMemcpyHostToDevice, stream),
        "starting a prompt");
  const uint64_t hidden = decoder_.hidden, mixed = decoder_.attention.heads * decoder_.attention.head_dim;
  if (x != nullptr) {
    check(cudaMemcpyAsync(stream_.get(), x, n * hidden * sizeof(float), cudaMemcpyHostToDevice, stream),
          "starting a prompt");
    check(cudaStreamSynchronize(stream), "starting a prompt");  // x may change
  } else {
    check(embed_tokens(weights_.embedding, tokens_.get(), n, stream_.get(), stream), "looking up tokens");
  }
  auto stage = stages.begin();
  for (const LayerWeights& layer : weights_.layers) {
    stage = std::find_if(stage, stages.end(), [](const Stage& s) { return s.op == Op::kAttend; });
    const uint32_t width = rows_of(layer.qkv), gate_up = rows_of(layer.gate_up);
    const auto normed = [&](const std::vector<TrellisMatrix>& parts, const float* norm) {
      float* y = wide_.get();
      for (const TrellisMatrix& w : parts) {
        multiply(w, Input::kNorm, stream_.get(), hidden, norm, n, y, rows_of(parts), false, stream);
        y += w.rows;
      }
    };
    normed(layer.qkv, layer.attention_norm);
    check(store_tokens(*stage, wide_.get(), width, n, first, stream), "filling the cache");
    check(attend_tokens(*stage, wide_.get(), width, n, first, mixed_.get(), stream), "attention");
    multiply(layer.output, Input::kPlain, mixed_.get(), mixed, nullptr, n, stream_.get(), hidden, true, stream);
    normed(layer.gate_up, layer.mlp_norm);
    multiply(layer.down, Input::kSwiglu, wide_.get(), gate_up, nullptr, n, stream_.get(), hidden, true, stream);
    ++stage;
  }
}

const float* PromptRunner::logits(uint64_t begin, uint64_t n, cudaStream_t stream) {
  multiply(weights_.head, Input::kNorm, stream_.get() + begin * decoder_.hidden, decoder_.hidden, weights_.norm,
           static_cast<uint32_t>(n), logits_.get(), decoder_.vocab, false, stream);
  return logits_.get();
}

}  // namespace upg::cuda
