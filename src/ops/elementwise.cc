#include "ops/elementwise.h"

namespace upg {

void rms_norm(OpContext& context, const float* x, std::span<const float> weight, float epsilon, uint64_t n_tokens,
              float* y) {
  const auto run = kernels::select(kernels::rms_norm_kernels(), "f32").run;
  const uint64_t width = weight.size();
  context.pool.split(n_tokens, 8, [&](uint64_t begin, uint64_t end, unsigned) {
    run({x + begin * width, weight.data(), y + begin * width, end - begin, width, epsilon});
  });
}

std::vector<std::string_view> glu_names() {
  std::vector<std::string_view> names;
  for (const auto& row : kernels::glu_kernels())
    if (row.isa == "ref") names.push_back(row.variant);
  return names;
}

void glu(OpContext& context, std::string_view f, const float* gate_up, uint64_t n_tokens, uint64_t width, float* y) {
  const auto run = kernels::select(kernels::glu_kernels(), f).run;
  context.pool.split(n_tokens, 8, [&](uint64_t begin, uint64_t end, unsigned) {
    run({gate_up + begin * 2 * width, y + begin * width, end - begin, width});
  });
}

void add_to(OpContext& context, float* x, const float* y, uint64_t n) {
  constexpr uint64_t kGrain = 16384;  // fewer are over before another thread has begun
  context.pool.split(n, kGrain, [&](uint64_t begin, uint64_t end, unsigned) {
    for (uint64_t i = begin; i < end; ++i) x[i] += y[i];
  });
}

}  // namespace upg
