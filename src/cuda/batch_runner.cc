#include "cuda/batch_runner.h"

#include <algorithm>

namespace upg::cuda {
namespace {

constexpr uint32_t kStepColumns = 32 * kStepBlocks;

}  // namespace

BatchRunner::BatchRunner(const PlainDecoder& decoder, const DeviceWeights& weights, uint32_t shared_limit, bool wide,
                         uint32_t multiprocessors)
    : decoder_(decoder), weights_(weights), resources_{shared_limit, wide, multiprocessors, nullptr, 0, nullptr} {
  const char* what = "passes of several tokens";
  uint64_t widest_in = kStepColumns * weights.head.steps, widest_out = 1, residual = 0;
  // The head has more rows than all others: parts for half of the few tokens are enough memory.
  uint64_t parts = gemm_part_floats(weights.head, kFewTokens / 2, multiprocessors);
  for (const LayerWeights& layer : weights.layers) {
    widest_out = std::max<uint64_t>(
        {widest_out, rows_of(layer.qkv), layer.output.rows, rows_of(layer.gate_up), layer.down.rows});
    for_each_matrix(layer, [&](const TrellisMatrix& w) {
      widest_in = std::max<uint64_t>(widest_in, uint64_t{kStepColumns} * w.steps);
      if (w.residual_values) residual = std::max<uint64_t>(residual, w.cols);
      parts = std::max(parts, gemm_part_floats(w, kFewTokens, multiprocessors));
    });
  }
  if (weights.head.residual_values) residual = std::max<uint64_t>(residual, weights.head.cols);
  host_rows_ = allocate_pinned<TokenRow>(kBatchTokens, what);
  rows_ = allocate_zeros<TokenRow>(kBatchTokens, what);
  host_places_ = allocate_pinned<CachePlace>(kBatchTokens, what);
  places_ = allocate_zeros<CachePlace>(kBatchTokens, what);
  stream_ = allocate_zeros<float>(kBatchTokens * decoder.hidden, what);
  wide_ = allocate_zeros<float>(kBatchTokens * widest_out, what);
  mixed_ = allocate_zeros<float>(kBatchTokens * decoder.attention.heads * decoder.attention.head_dim, what);
  scales_ = allocate_zeros<float>(kBatchTokens, what);
  logits_ = allocate_zeros<float>(kLogitRows * decoder.vocab, what);
  halves_ = allocate_zeros<uint16_t>(kBatchTokens * widest_in, what);
  plain_ = allocate_zeros<float>(kBatchTokens * residual, what);
  parts_ = allocate_zeros<float>(parts, what);
  resources_.parts = parts_.get();
  resources_.part_floats = parts;
  scratch_ = allocate_zeros<float>(few_scratch_floats(multiprocessors), what);
  resources_.scratch = scratch_.get();
  partial_ = allocate_zeros<float>(
      attend_partial_floats(static_cast<uint32_t>(decoder.attention.head_dim), multiprocessors), what);
}

// W f(x), in y or in parts until the next product.
RowParts BatchRunner::multiply(const TrellisMatrix& w, Input input, RowParts x, float* residual, const float* norm,
                               uint32_t n, float* y, uint64_t stride, Queue queue) {
  const HalfTokens tokens{halves_.get(), scales_.get(), kStepColumns * w.steps, tokens_together(w, n, resources_)};
  float* plain = w.residual_values ? plain_.get() : nullptr;
  check(prepare_tokens(input, x, residual, norm, decoder_.epsilon, w.cols, n, tokens, plain, queue),
        "preparing tokens");
  RowParts where{};
  check(multiply_tokens(w, tokens, n, y, stride, resources_, &where, queue), "multiplying tokens");
  if (plain) check(add_residual_tokens(w, plain, n, where.data, where.row_stride, queue), "multiplying tokens");
  return where;
}

// Matrices one below the other, of the norm of the residual stream, to which `before` is added first.
RowParts BatchRunner::normed(const std::vector<TrellisMatrix>& parts, RowParts before, const float* norm, uint32_t n,
                             Queue queue) {
  const uint64_t stride = rows_of(parts);
  if (parts.size() == 1)
    return multiply(parts[0], Input::kNorm, before, stream_.get(), norm, n, wide_.get(), stride, queue);
  float* y = wide_.get();
  for (const TrellisMatrix& w : parts) {
    const RowParts where = multiply(w, Input::kNorm, before, stream_.get(), norm, n, y, stride, queue);
    if (where.data != y) check(add_parts(where, w.rows, n, y, stride, false, queue), "multiplying tokens");
    before = {};
    y += w.rows;
  }
  return {wide_.get(), 1, 0, stride};
}

void BatchRunner::keep(uint64_t row, uint64_t n, uint64_t as, Queue queue) {
  const uint64_t hidden = decoder_.hidden;
  if (row == as) return;
  // One by one where they overlap.
  const uint64_t each = std::min(n, row - as);
  for (uint64_t i = 0; i < n; i += each)
    check(cudaMemcpyAsync(stream_.get() + (as + i) * hidden, stream_.get() + (row + i) * hidden,
                          std::min(each, n - i) * hidden * sizeof(float), cudaMemcpyDeviceToDevice, queue.stream),
          "keeping rows");
}

void BatchRunner::send_rows(std::span<const TokenRun> runs, Queue queue) {
  check(cudaStreamSynchronize(queue.stream), "running tokens together");  // the last pass may still read its tokens
  uint64_t n = 0;
  for (uint32_t place = 0; place < runs.size(); ++place) {
    host_places_[place] = runs[place].place;
    auto position = static_cast<uint32_t>(runs[place].position);
    for (int32_t token : runs[place].tokens) host_rows_[n++] = {token, place, position++};
  }
  check(cudaMemcpyAsync(rows_.get(), host_rows_.get(), n * sizeof(TokenRow), cudaMemcpyHostToDevice, queue.stream),
        "starting tokens together");
  check(cudaMemcpyAsync(places_.get(), host_places_.get(), runs.size() * sizeof(CachePlace), cudaMemcpyHostToDevice,
                        queue.stream),
        "starting tokens together");
}

void BatchRunner::run(std::span<const TokenRun> runs, const std::vector<Stage>& stages, Queue queue) {
  uint32_t n = 0, singles = 0;
  uint64_t longest = 0;
  for (const TokenRun& run : runs) n += static_cast<uint32_t>(run.tokens.size());
  for (; singles < runs.size() && runs[singles].tokens.size() == 1; ++singles)
    longest = std::max(longest, runs[singles].position + 1);
  send_rows(runs, queue);
  const uint64_t hidden = decoder_.hidden, mixed = decoder_.attention.heads * decoder_.attention.head_dim;
  if (runs[0].x == nullptr) {
    check(embed_tokens(weights_.embedding, rows_.get(), n, stream_.get(), queue), "looking up tokens");
  } else {
    float* to = stream_.get();
    for (const TokenRun& run : runs) {
      const uint64_t floats = run.tokens.size() * hidden;
      check(cudaMemcpyAsync(to, run.x, floats * sizeof(float), cudaMemcpyHostToDevice, queue.stream),
            "starting tokens together");
      to += floats;
    }
    check(cudaStreamSynchronize(queue.stream), "starting tokens together");  // x may change
  }
  auto stage = stages.begin();
  RowParts before{};
  for (uint32_t i = 0; i < weights_.layers.size(); ++i, ++stage) {
    const LayerWeights& layer = weights_.layers[i];
    stage = std::find_if(stage, stages.end(), [](const Stage& s) { return s.op == Op::kAttend; });
    const RowParts qkv = normed(layer.qkv, before, layer.attention_norm, n, queue);
    if (singles < n)
      check(store_tokens(*stage, qkv, rows_.get(), places_.get(), i, singles, n - singles, mixed_.get(), queue),
            "filling the cache");
    if (singles > 0)
      check(attend_singles(*stage, qkv, rows_.get(), places_.get(), i, singles, static_cast<uint32_t>(longest),
                           resources_.multiprocessors, partial_.get(), mixed_.get(), queue),
            "attention");
    float* at = mixed_.get() + singles * mixed;
    for (const TokenRun& run : runs.subspan(singles)) {
      check(attend_run(at_place(*stage, run.place, i), static_cast<uint32_t>(run.tokens.size()),
                       static_cast<uint32_t>(run.position), at, queue),
            "attention");
      at += run.tokens.size() * mixed;
    }
    before = multiply(layer.output, Input::kPlain, {mixed_.get(), 1, 0, mixed}, nullptr, nullptr, n, wide_.get(),
                      hidden, queue);
    const RowParts gate_up = normed(layer.gate_up, before, layer.mlp_norm, n, queue);
    const Input gated = layer.gate_up[0].paired ? Input::kPairedSwiglu : Input::kSwiglu;
    before = multiply(layer.down, gated, gate_up, nullptr, nullptr, n, wide_.get(), hidden, queue);
  }
  check(add_parts(before, static_cast<uint32_t>(hidden), n, stream_.get(), hidden, true, queue), "adding parts");
}

float* BatchRunner::logits(uint64_t begin, uint64_t n, Queue queue) {
  const RowParts where = multiply(weights_.head, Input::kNorm, {}, stream_.get() + begin * decoder_.hidden,
                                  weights_.norm, static_cast<uint32_t>(n), logits_.get(), decoder_.vocab, queue);
  if (where.data != logits_.get())
    check(add_parts(where, static_cast<uint32_t>(decoder_.vocab), static_cast<uint32_t>(n), logits_.get(),
                    decoder_.vocab, false, queue),
          "adding parts");
  return logits_.get();
}

}  // namespace upg::cuda
