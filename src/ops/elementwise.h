// The ops between the matrix products, each with its kernel chosen once.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "ops/linear.h"

namespace upg {

/// y[t] = rms_norm(x[t]) * weight: x, y [n_tokens, weight.size()]; y may be x.
void rms_norm(OpContext& context, const float* x, std::span<const float> weight, float epsilon, uint64_t n_tokens,
              float* y);

/// Activation functions of gated units: the variants of the op glu.
std::vector<std::string_view> glu_names();

/// y[t] = f(gate) * up, f one of glu_names(): gate_up [n_tokens, 2, width], y [n_tokens, width].
void glu(OpContext& context, std::string_view f, const float* gate_up, uint64_t n_tokens, uint64_t width, float* y);

/// x[i] += y[i], n of them.
void add_to(OpContext& context, float* x, const float* y, uint64_t n);

}  // namespace upg
