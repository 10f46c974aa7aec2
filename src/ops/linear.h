// A weight matrix with the kernels chosen for it: y = W x for one token or many.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "codec/codec.h"
#include "kernels/kernel.h"

namespace upg {

class Accelerator;
class Linear;

/// Stands between a model and its weights: sees what enters each product, and may put other weights in their place.
/// Compression runs a model through one.
class WeightHook {
 public:
  virtual ~WeightHook() = default;
  /// Called before y = W x for x [n_tokens, cols], and before rows are looked up (x is nullptr). Returns the weights
  /// to use, `linear` itself or others of its shape; nullptr: the product is not wanted, y becomes 0.
  virtual const Linear* before(const Linear& linear, const float* x, uint64_t n_tokens) = 0;
  /// Whether before() will look at x: where that would have to be fetched from a device, it may be nullptr otherwise.
  virtual bool sees(const Linear&) const { return true; }
};

/// What every op needs besides its operands: threads, and memory to work in that is kept from call to call.
struct OpContext {
  explicit OpContext(unsigned threads) : pool(threads), worker_scratch(pool.size()) {}

  /// At least n floats that belong to the worker until its next call.
  float* scratch(unsigned worker, uint64_t n) {
    std::vector<float>& buffer = worker_scratch[worker];
    if (buffer.size() < n) buffer.resize(n);
    return buffer.data();
  }

  ThreadPool pool;
  std::vector<std::vector<float>> worker_scratch;
  std::vector<int8_t> q8;  // the quantised tokens
  std::vector<float> q8_scale;
  std::vector<int32_t> q8_offset;
  WeightHook* hook = nullptr;
  Accelerator* accelerator = nullptr;  // does the products with float activations, where there is one
  /// One token takes the way of several, whose results do not depend on how many they are.
  bool one_as_many = false;
  /// Where a product is of some tokens of the pass only, as an expert's: which, ascending. Empty: of all.
  std::span<const uint32_t> routed{};
};

/// How activations enter products with compressed weights.
enum class Activations {
  kQuantized,  // int8 in blocks of 32, where the codec has kernels for it
  kFloat,
};

class Linear {
 public:
  Linear() = default;
  /// Chooses the kernels. Throws Error(kUnsupported) if the codec has none.
  explicit Linear(Matrix matrix, std::string name = {}, bool to_stream = false);

  const std::string& name() const { return name_; }  // of the stored weight
  /// Whether the product is added to the residual stream as it is.
  bool to_stream() const { return to_stream_; }
  uint64_t rows() const { return matrix_.rows; }
  uint64_t cols() const { return matrix_.cols; }
  const Matrix& matrix() const { return matrix_; }

  /// y[t] = W x[t]: x [n_tokens, cols], y [n_tokens, rows], y_stride apart (0: rows()). The result does not depend on
  /// the number of threads.
  void apply(OpContext& context, const float* x, uint64_t n_tokens, Activations activations, float* y,
             uint64_t y_stride = 0) const;
  /// x[t] = row tokens[t]: x [tokens.size(), cols], every token below rows().
  void lookup(OpContext& context, std::span<const int32_t> tokens, float* x) const;

  // For products of parts of a matrix.
  /// The weights that stand for these, as the hook of the context says, before a product with x [n_tokens, cols];
  /// nullptr: it is not wanted.
  const Linear* in_use(OpContext& context, const float* x, uint64_t n_tokens) const {
    return context.hook ? context.hook->before(*this, x, n_tokens) : this;
  }
  static constexpr uint64_t kPanelRows = 16;
  /// Rows [16 panel, 16 panel + 16) to out [cols][16]; rows past the last are 0. Thread-safe.
  void unpack(uint64_t panel, float* out) const;

 private:
  void run(OpContext& context, const float* x, uint64_t n_tokens, Activations activations, float* y,
           uint64_t y_stride) const;
  void quantized_tokens(OpContext& context, const float* x, uint64_t n_tokens, float* y, uint64_t y_stride) const;
  void one_token(OpContext& context, const float* x, float* y) const;
  void many_tokens(OpContext& context, const float* x, uint64_t n_tokens, float* y, uint64_t y_stride) const;

  Matrix matrix_;
  std::string name_;
  bool to_stream_ = false;
  uint64_t depth_ = 0;  // columns unpacked at a time
  // One of the two, for the activations that the codec asks for.
  kernels::MatmulFn matmul_ = nullptr;
  kernels::GemvFn gemv_ = nullptr;
  kernels::UnpackFn unpack_ = nullptr;
  kernels::GemmFn gemm_ = nullptr;
  kernels::QuantizeFn quantize_ = nullptr;
};

}  // namespace upg
