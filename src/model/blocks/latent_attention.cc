#include "model/blocks/latent_attention.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/clones.h"

namespace upg {
namespace {

constexpr uint64_t kPanel = Linear::kPanelRows;

// Unpacked rows [begin, end) of a matrix, as whole panels [cols][16].
struct Rows {
  Rows(const Linear& linear, uint64_t first, uint64_t last, float* memory)
      : panels(memory), cols(linear.cols()), begin(first), end(last) {
    for (uint64_t p = begin / kPanel; p * kPanel < end; ++p)
      linear.unpack(p, panels + (p - begin / kPanel) * kPanel * cols);
  }
  static uint64_t floats(uint64_t rows, uint64_t cols) { return (ceil_div(rows, kPanel) + 1) * kPanel * cols; }

  const float* at(uint64_t row) const {  // columns are 16 apart
    return panels + (row / kPanel - begin / kPanel) * kPanel * cols + row % kPanel;
  }

  float* panels;
  uint64_t cols, begin, end;
};

// y[c] = sum over rows of W[r, c] x[r - begin]
UPG_CLONES void multiply_transposed(const Rows& w, const float* x, float* y) {
  std::memset(y, 0, w.cols * sizeof *y);
  for (uint64_t panel = w.begin / kPanel; panel * kPanel < w.end; ++panel) {
    float weight[kPanel] = {};
    for (uint64_t j = 0; j < kPanel; ++j) {
      const uint64_t r = panel * kPanel + j;
      if (r >= w.begin && r < w.end) weight[j] = x[r - w.begin];
    }
    const float* p = w.panels + (panel - w.begin / kPanel) * kPanel * w.cols;
    for (uint64_t c = 0; c < w.cols; ++c, p += kPanel) {
      float sums[kPanel];
      for (uint64_t j = 0; j < kPanel; ++j) sums[j] = p[j] * weight[j];
      for (uint64_t half = kPanel / 2; half > 0; half /= 2)
        for (uint64_t j = 0; j < half; ++j) sums[j] += sums[j + half];
      y[c] += sums[0];
    }
  }
}

// y[r - begin] = sum_c W[r, c] x[c]
UPG_CLONES void multiply(const Rows& w, const float* x, float* y) {
  for (uint64_t panel = w.begin / kPanel; panel * kPanel < w.end; ++panel) {
    float sums[kPanel] = {};
    const float* p = w.panels + (panel - w.begin / kPanel) * kPanel * w.cols;
    for (uint64_t c = 0; c < w.cols; ++c, p += kPanel)
      for (uint64_t j = 0; j < kPanel; ++j) sums[j] += p[j] * x[c];
    for (uint64_t j = 0; j < kPanel; ++j) {
      const uint64_t r = panel * kPanel + j;
      if (r >= w.begin && r < w.end) y[r - w.begin] = sums[j];
    }
  }
}

// Queries [n_tokens, heads, plain_dim + rotary_dim].
void project_queries(OpContext& context, const LatentAttention& a, float epsilon, const float* x, uint64_t n_tokens,
                     Activations activations, BlockMemory& memory) {
  memory.wide.resize(n_tokens * a.query.rows());
  if (a.query_down.parts().empty()) return a.query.apply(context, x, n_tokens, activations, memory.wide.data());
  memory.inner.resize(n_tokens * a.query_down.rows());
  a.query_down.apply(context, x, n_tokens, activations, memory.inner.data());
  rms_norm(context, memory.inner.data(), a.query_norm, epsilon, n_tokens, memory.inner.data());
  a.query.apply(context, memory.inner.data(), n_tokens, activations, memory.wide.data());
}

}  // namespace

void attend(OpContext& context, const LatentAttention& a, const Rotary& rotary, float epsilon, uint64_t layer,
            const float* x, const Batch& batch, Activations activations, BlockMemory& memory, float* out) {
  const uint64_t n_tokens = batch.tokens.size();
  const uint64_t head_dim = a.plain_dim + a.rotary_dim, width = a.heads * head_dim;
  const uint64_t key_dim = a.rank + a.rotary_dim;
  project_queries(context, a, epsilon, x, n_tokens, activations, memory);
  float* queries = memory.wide.data();

  // The latent vectors, apart from the rotary keys because a hook sees them as what `expand` multiplies.
  memory.gathered.resize(n_tokens * key_dim);
  memory.inner.resize(n_tokens * a.rank);
  float *keys = memory.gathered.data(), *latents = memory.inner.data();
  a.latent.apply(context, x, n_tokens, activations, keys);
  for (uint64_t t = 0; t < n_tokens; ++t) std::memcpy(latents + t * a.rank, keys + t * key_dim, a.rank * sizeof *keys);
  rms_norm(context, latents, a.latent_norm, epsilon, n_tokens, latents);
  const Linear* expand = a.expand.in_use(context, latents, n_tokens);
  if (expand == nullptr) {  // nothing after it is wanted either
    memory.wide.assign(n_tokens * a.heads * a.value_dim, 0.0f);
    return a.output.apply(context, memory.wide.data(), n_tokens, activations, out);
  }

  for (const Batch::Run& run : batch.runs) run.cache->make_room(layer, run.n_tokens);
  context.pool.split(n_tokens, 1, [&](uint64_t begin, uint64_t end, unsigned worker) {
    for (uint64_t t = begin; t < end; ++t) {
      const auto& [cache, position] = batch.tokens[t];
      const Rope& rope = rotary.of_capacity(cache->capacity());
      float* angles = context.scratch(worker, rope.rotary_dim());
      rope.angles(position, angles);
      for (uint64_t h = 0; h < a.heads; ++h) rope.turn(queries + t * width + h * head_dim + a.plain_dim, angles);
      float* key = keys + t * key_dim;
      rope.turn(key + a.rank, angles);
      std::memcpy(key, latents + t * a.rank, a.rank * sizeof *key);
      cache->store(layer, 0, position, key, nullptr);
    }
  });

  // Queries against latent vectors, [n_tokens, heads, rank + rotary_dim].
  const uint64_t of_head = a.plain_dim + a.value_dim;
  memory.scattered.resize(n_tokens * a.heads * key_dim);
  float* absorbed = memory.scattered.data();
  context.pool.each(a.heads, [&](uint64_t h, unsigned worker) {
    const Rows w(*expand, h * of_head, h * of_head + a.plain_dim,
                 context.scratch(worker, Rows::floats(a.plain_dim, a.rank)));
    for (uint64_t t = 0; t < n_tokens; ++t) {
      const float* q = queries + t * width + h * head_dim;
      float* to = absorbed + (t * a.heads + h) * key_dim;
      multiply_transposed(w, q, to);
      std::memcpy(to + a.rank, q + a.plain_dim, a.rotary_dim * sizeof *q);
    }
  });

  // Weighted sums of latent vectors go where the queries were: rank + rotary_dim is room enough.
  constexpr uint64_t kHeads = 16;  // shared out together
  const uint64_t parts = ceil_div(a.heads, kHeads);
  context.pool.each(n_tokens * parts, [&](uint64_t item, unsigned worker) {
    const uint64_t t = n_tokens - 1 - item / parts, head = item % parts * kHeads;
    const auto& [cache, position] = batch.tokens[t];
    const uint64_t end = position + 1;
    kernels::AttendArgs args{};
    args.group = std::min(kHeads, a.heads - head);
    float* sums = context.scratch(worker, args.group * (a.rank + end));
    args.scores = sums + args.group * a.rank;
    args.q = absorbed + (t * a.heads + head) * key_dim;
    args.q_stride = key_dim;
    args.out = sums;
    args.out_stride = a.rank;
    args.scale = a.scale;
    cache->attend(layer, 0, 0, end, args);
    for (uint64_t h = 0; h < args.group; ++h)
      std::memcpy(absorbed + (t * a.heads + head + h) * key_dim, sums + h * a.rank, a.rank * sizeof *sums);
  });

  memory.wide.resize(n_tokens * a.heads * a.value_dim);
  float* mixed = memory.wide.data();
  context.pool.each(a.heads, [&](uint64_t h, unsigned worker) {
    const Rows w(*expand, h * of_head + a.plain_dim, (h + 1) * of_head,
                 context.scratch(worker, Rows::floats(a.value_dim, a.rank)));
    for (uint64_t t = 0; t < n_tokens; ++t)
      multiply(w, absorbed + (t * a.heads + h) * key_dim, mixed + (t * a.heads + h) * a.value_dim);
  });
  a.output.apply(context, mixed, n_tokens, activations, out);
}

}  // namespace upg
