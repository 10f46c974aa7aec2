#include "ops/linear.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "ops/accelerator.h"

namespace upg {
namespace {

constexpr uint64_t kPanelRows = Linear::kPanelRows;
constexpr uint64_t kDepth = 256;  // columns unpacked at a time: two panels of them fill 32 KiB, an L1 cache
constexpr uint64_t kPanelsAtOnce = 2;
// Products of many tokens decode what they multiply for all of them: of fewer rows at a time they take longer.
constexpr uint64_t kManyTokens = 16;
constexpr uint64_t kRowsOfMany = 256;
constexpr uint64_t kTokensToSplit = 4;  // quantising fewer is over before another thread has begun

}  // namespace

Linear::Linear(Matrix matrix, std::string name, bool to_stream)
    : matrix_(std::move(matrix)), name_(std::move(name)), to_stream_(to_stream) {
  const std::string codec(matrix_.codec->id);
  const std::string variant = codec + "_" + std::string(matrix_.codec->activation);
  if (matrix_.codec->activation == "q8") {
    matmul_ = kernels::select(kernels::matmul_kernels(), variant).run;
  } else {
    gemv_ = kernels::select(kernels::gemv_kernels(), variant).run;
  }
  const auto& unpack = kernels::select(kernels::unpack_kernels(), codec);
  unpack_ = unpack.run;
  // The reference decodes whole rows whatever is asked of it: ask once.
  depth_ = unpack.isa == "ref" ? std::max<uint64_t>(matrix_.cols, 1) : kDepth;
  gemm_ = kernels::select(kernels::gemm_kernels(), "f32").run;
  quantize_ = kernels::select(kernels::quantize_kernels(), "q8").run;
}

void Linear::apply(OpContext& context, const float* x, uint64_t n_tokens, Activations activations, float* y,
                   uint64_t y_stride) const {
  if (y_stride == 0) y_stride = rows();
  const Linear* used = in_use(context, x, n_tokens);
  if (used == nullptr) {
    for (uint64_t t = 0; t < n_tokens; ++t) std::memset(y + t * y_stride, 0, rows() * sizeof *y);
  } else {
    used->run(context, x, n_tokens, activations, y, y_stride);
  }
}

void Linear::unpack(uint64_t panel, float* out) const {
  unpack_({matrix_.layout.get(), &matrix_, panel, 0, matrix_.cols, out});
}

void Linear::lookup(OpContext& context, std::span<const int32_t> tokens, float* x) const {
  const Linear* used = in_use(context, nullptr, tokens.size());
  if (used == nullptr) {
    std::memset(x, 0, tokens.size() * cols() * sizeof *x);
    return;
  }
  for (uint64_t t = 0; t < tokens.size(); ++t)
    used->matrix_.codec->decode_row(used->matrix_, static_cast<uint64_t>(tokens[t]), x + t * cols());
}

void Linear::run(OpContext& context, const float* x, uint64_t n_tokens, Activations activations, float* y,
                 uint64_t y_stride) const {
  if (context.accelerator != nullptr && activations == Activations::kFloat) {
    context.accelerator->multiply(*this, x, n_tokens, y, y_stride);
  } else if (matmul_ != nullptr && activations == Activations::kQuantized) {
    quantized_tokens(context, x, n_tokens, y, y_stride);
  } else if (gemv_ != nullptr && n_tokens == 1 && !context.one_as_many) {
    one_token(context, x, y);
  } else {
    many_tokens(context, x, n_tokens, y, y_stride);
  }
}

void Linear::quantized_tokens(OpContext& context, const float* x, uint64_t n_tokens, float* y,
                              uint64_t y_stride) const {
  const uint64_t blocks = ceil_div(matrix_.cols, 32);
  context.q8.resize(blocks * n_tokens * 32);
  context.q8_scale.resize(blocks * n_tokens);
  context.q8_offset.resize(blocks * n_tokens);
  context.pool.split(n_tokens, kTokensToSplit, [&](uint64_t begin, uint64_t end, unsigned) {
    for (uint64_t t = begin; t < end; ++t)
      quantize_({x + t * matrix_.cols, matrix_.cols, n_tokens, context.q8.data() + 32 * t, context.q8_scale.data() + t,
                 context.q8_offset.data() + t});
  });
  const kernels::MatmulArgs args{matrix_.layout.get(),
                                 &matrix_,
                                 x,
                                 {context.q8.data(), context.q8_scale.data(), context.q8_offset.data()},
                                 y,
                                 n_tokens,
                                 y_stride,
                                 0,
                                 0};
  const auto rows = [&](uint64_t begin, uint64_t end, unsigned) {
    kernels::MatmulArgs part = args;
    part.row_begin = begin;
    part.row_end = end;
    matmul_(part);
  };
  context.pool.share(matrix_.rows, n_tokens < kManyTokens ? kPanelRows : kRowsOfMany, rows);
}

void Linear::one_token(OpContext& context, const float* x, float* y) const {
  context.pool.share(matrix_.rows, kPanelRows, [&](uint64_t begin, uint64_t end, unsigned) {
    gemv_({matrix_.layout.get(), &matrix_, x, y, begin, end});
  });
}

void Linear::many_tokens(OpContext& context, const float* x, uint64_t n_tokens, float* y, uint64_t y_stride) const {
  const uint64_t rows = matrix_.rows;
  context.pool.share(rows, kPanelRows * kPanelsAtOnce, [&](uint64_t begin, uint64_t end, unsigned worker) {
    // The two panels' weights, then their outputs for all tokens: 32 floats a token.
    float* unpacked = context.scratch(worker, kPanelsAtOnce * kPanelRows * (depth_ + n_tokens));
    float* out = unpacked + kPanelsAtOnce * kPanelRows * depth_;
    for (uint64_t row = begin; row < end; row += kPanelRows * kPanelsAtOnce) {
      const uint64_t height = std::min(kPanelRows * kPanelsAtOnce, end - row);
      const uint64_t panels = ceil_div(height, kPanelRows);
      const uint64_t stride = panels * kPanelRows;
      std::memset(out, 0, n_tokens * stride * sizeof *out);
      for (uint64_t col = 0; col < matrix_.cols; col += depth_) {
        const uint64_t depth = std::min(depth_, matrix_.cols - col);
        for (uint64_t p = 0; p < panels; ++p)
          unpack_({matrix_.layout.get(), &matrix_, row / kPanelRows + p, col, col + depth,
                   unpacked + p * depth * kPanelRows});
        gemm_({unpacked, x + col, out, panels, depth, n_tokens, matrix_.cols, stride});
      }
      for (uint64_t t = 0; t < n_tokens; ++t) std::memcpy(y + t * y_stride + row, out + t * stride, height * sizeof *y);
    }
  });
}

}  // namespace upg
