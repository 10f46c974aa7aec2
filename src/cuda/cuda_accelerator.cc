#include "cuda/cuda_accelerator.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "codec/trellis_search.h"
#include "cuda/dense.h"
#include "cuda/first_gpu.h"
#include "cuda/layer_runner.h"
#include "cuda/trellis_search.h"
#include "cuda/weight_copies.h"

namespace upg::cuda {
namespace {

constexpr uint32_t kFactorBlock = 64;   // columns that eliminate() and solve() take at a time
constexpr uint64_t kFeedColumns = 256;  // whose errors reach the columns far behind them together

uint64_t aligned(uint64_t n) { return WeightCopies::stride(n); }

class CudaAccelerator;

class CudaSums final : public DeviceSums {
 public:
  CudaSums(CudaAccelerator& device, uint64_t cols, uint64_t stream_rows);
  void add(const float* x, const float* drift, uint64_t n_tokens) override;
  void add_stream(const float* stream_drift) override;
  void correct(uint64_t rows, float input_strength, float stream_strength, double damping, float* weights) override;
  std::vector<float> moments() const override;

  uint64_t cols() const { return cols_; }
  // [cols, cols], sums; a token's share is inverse_tokens().
  const float* sums() const { return moments_.get(); }
  float inverse_tokens() const { return n_tokens_ ? 1.0f / static_cast<float>(n_tokens_) : 0.0f; }

 private:
  CudaAccelerator& device_;
  uint64_t cols_, stream_rows_, n_tokens_ = 0, last_tokens_ = 0;
  DeviceMemory<float> moments_, drift_, stream_;  // [cols, cols], [cols, cols], [stream_rows, cols]
};

class CudaAccelerator final : public Accelerator {
 public:
  explicit CudaAccelerator(ThreadPool& pool) : pool_(pool) {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "streams");
    staging_ = std::make_unique<Staging>(pool, stream_);
    weights_ = std::make_unique<WeightCopies>(pool, *staging_, stream_);
    runner_ = std::make_unique<LayerRunner>(*weights_, *staging_, stream_);
  }
  ~CudaAccelerator() override {
    cudaStreamSynchronize(stream_);
    runner_.reset();
    weights_.reset();
    staging_.reset();
    cudaStreamDestroy(stream_);
  }

  std::string description() const override { return properties_.name; }
  uint64_t peak_bytes() const override { return weights_->peak_bytes(); }
  void multiply(const Linear& linear, const float* x, uint64_t n_tokens, float* y, uint64_t y_stride) override;
  void forget(const Linear& linear) override { weights_->forget(linear); }
  bool run_layer(const Decoder& decoder, uint64_t index, uint64_t capacity, uint64_t n_tokens, float* x,
                 WeightHook& hook) override {
    return runner_->run(decoder, index, capacity, n_tokens, x, hook);
  }
  std::shared_ptr<DeviceSums> sums(uint64_t cols, uint64_t stream_rows) override {
    return std::make_shared<CudaSums>(*this, cols, stream_rows);
  }
  std::vector<float> factor(const Moments& moments, std::span<const uint32_t> order, double damping) override;
  void search(const TrellisTables& tables, std::span<TrellisTile> tiles) override;
  void encode(TrellisWork& work) override;
  float* host_memory(uint64_t n) override {
    if (host_.size() < n) host_.resize(n);
    return host_.data();
  }

  // H of the moments, factored with the columns in this order; null order: as they are. Returns its width.
  uint32_t factor_into(Buffer<float>& to, const float* moments, float scale, uint64_t cols, const uint32_t* order,
                       uint64_t n, double damping);
  // x [rows, cols] to memory with rows `aligned(cols)` floats apart.
  float* upload_rows(Buffer<float>& to, const float* x, uint64_t rows, uint64_t cols) {
    const uint64_t stride = aligned(cols);
    float* device = to.at_least(std::max<uint64_t>(rows, 1) * stride, "tokens");
    if (stride != cols) check(cudaMemsetAsync(device, 0, 4 * rows * stride, stream_), "tokens");
    staging_->to_device(device, 4 * stride, x, 4 * cols, 4 * cols, rows);
    return device;
  }

  ThreadPool& pool_;
  const cudaDeviceProp properties_ = use_first_gpu(8, 0, "compressing");
  cudaStream_t stream_{};
  std::unique_ptr<Staging> staging_;
  std::unique_ptr<WeightCopies> weights_;
  std::unique_ptr<LayerRunner> runner_;
  Buffer<float> x_, other_, transposed_, other_transposed_, y_, correction_factor_, factor_, work_;

 private:
  uint64_t factor_width_ = 0;
  std::vector<float> host_;
  Buffer<float> target_, original_, errors_, importance_, values_, row_values_;
  Buffer<uint32_t> order_, words_;
  Buffer<uint8_t> steps_, scales_;
  Buffer<int8_t> residual_;
  Buffer<double> row_error_;
};

void CudaAccelerator::multiply(const Linear& linear, const float* x, uint64_t n_tokens, float* y, uint64_t y_stride) {
  if (n_tokens == 0) return;
  const uint64_t rows = linear.rows(), cols = linear.cols(), stride = aligned(cols);
  const float* weights = weights_->of(linear);
  const float* tokens = upload_rows(x_, x, n_tokens, cols);
  float* out = y_.at_least(n_tokens * rows, "products");
  const Gemm g{tokens, weights, out, narrow(n_tokens), narrow(rows), narrow(stride), stride, stride, rows};
  check(multiply_dense(g, Precision::kTf32, stream_), "multiplying");
  staging_->from_device(y, 4 * y_stride, out, 4 * rows, 4 * rows, n_tokens);
}

CudaSums::CudaSums(CudaAccelerator& device, uint64_t cols, uint64_t stream_rows)
    : device_(device),
      cols_(cols),
      stream_rows_(stream_rows),
      moments_(device.weights_->allocate(cols * cols, "moments")),
      drift_(device.weights_->allocate(cols * cols, "drifts")),
      stream_(device.weights_->allocate(stream_rows * cols, "drifts")) {}

// sums[r][c] += sum_t rows[t][r] x[t][c], as products of transposed operands.
void CudaSums::add(const float* x, const float* drift, uint64_t n_tokens) {
  last_tokens_ = n_tokens;
  if (n_tokens == 0) return;
  const uint64_t stride = aligned(cols_), tokens = aligned(n_tokens);
  CudaAccelerator& d = device_;
  float* xt = d.transposed_.at_least(cols_ * tokens, "moments");
  float* dt = d.other_transposed_.at_least(std::max(cols_, stream_rows_) * tokens, "moments");
  for (auto [from, to] : {std::pair{x, xt}, std::pair{drift, dt}}) {
    const float* rows = d.upload_rows(d.x_, from, n_tokens, cols_);
    check(cudaMemsetAsync(to, 0, 4 * cols_ * tokens, d.stream_), "moments");
    check(transpose(rows, stride, narrow(n_tokens), narrow(cols_), nullptr, 0, to, tokens, d.stream_), "moments");
  }
  const uint32_t n = narrow(cols_), k = narrow(tokens);
  check(multiply_dense({xt, xt, moments_.get(), n, n, k, tokens, tokens, cols_, 1, true, true}, Precision::kTf32,
                       d.stream_),
        "moments");
  check(multiply_dense({dt, xt, drift_.get(), n, n, k, tokens, tokens, cols_, 1, true}, Precision::kTf32, d.stream_),
        "drifts");
  n_tokens_ += n_tokens;
}

void CudaSums::add_stream(const float* stream_drift) {
  if (last_tokens_ == 0) return;
  const uint64_t tokens = aligned(last_tokens_);
  CudaAccelerator& d = device_;
  const float* rows = d.upload_rows(d.x_, stream_drift, last_tokens_, stream_rows_);
  float* st = d.other_transposed_.get();
  check(cudaMemsetAsync(st, 0, 4 * stream_rows_ * tokens, d.stream_), "drifts");
  check(transpose(rows, aligned(stream_rows_), narrow(last_tokens_), narrow(stream_rows_), nullptr, 0, st, tokens,
                  d.stream_),
        "drifts");
  check(multiply_dense({st, d.transposed_.get(), stream_.get(), narrow(stream_rows_), narrow(cols_), narrow(tokens),
                        tokens, tokens, cols_, 1, true},
                       Precision::kTf32, d.stream_),
        "drifts");
}

std::vector<float> CudaSums::moments() const {
  std::vector<float> values(cols_ * cols_);
  device_.staging_->from_device(values.data(), 4 * cols_, moments_.get(), 4 * cols_, 4 * cols_, cols_);
  for (float& x : values) x *= inverse_tokens();
  return values;
}

void CudaSums::correct(uint64_t rows, float input_strength, float stream_strength, double damping, float* weights) {
  CudaAccelerator& d = device_;
  const uint64_t width = ceil_div(cols_, kFactorBlock) * kFactorBlock;
  const uint32_t n = narrow(cols_), m = narrow(rows);
  // W and what is missing of it, rows `width` apart.
  DeviceMemory<float> w = d.weights_->allocate(rows * width, "weights"),
                      missing = d.weights_->allocate(rows * width, "weights");
  d.staging_->to_device(w.get(), 4 * width, weights, 4 * cols_, 4 * cols_, rows);
  {
    DeviceMemory<float> drift = d.weights_->allocate(cols_ * width, "drifts");  // transposed
    check(transpose(drift_.get(), cols_, n, n, nullptr, 0, drift.get(), width, d.stream_), "drifts");
    check(multiply_dense({w.get(), drift.get(), missing.get(), m, n, narrow(width), width, width, width,
                          input_strength * inverse_tokens()},
                         Precision::kFloat, d.stream_),
          "drifts");
    check(cudaStreamSynchronize(d.stream_), "drifts");
  }
  drift_.reset();
  if (stream_rows_) {
    check(add_scaled(stream_.get(), cols_, stream_strength * inverse_tokens(), m, n, missing.get(), width, d.stream_),
          "drifts");
    check(cudaStreamSynchronize(d.stream_), "drifts");
    stream_.reset();
  }
  d.factor_into(d.factor_, moments_.get(), inverse_tokens(), cols_, nullptr, width, damping);
  check(solve(d.factor_.get(), narrow(width), missing.get(), m, d.work_.at_least(3 * kFactorBlock * width, "weights"),
              d.stream_),
        "correcting weights");
  check(add_scaled(missing.get(), width, 1, m, n, w.get(), width, d.stream_), "correcting weights");
  d.staging_->from_device(weights, 4 * cols_, w.get(), 4 * width, 4 * cols_, rows);
}

uint32_t CudaAccelerator::factor_into(Buffer<float>& to, const float* moments, float scale, uint64_t cols,
                                      const uint32_t* order, uint64_t n, double damping) {
  const uint64_t width = ceil_div(n, kFactorBlock) * kFactorBlock;
  std::vector<float> diagonal(cols);
  check(cudaStreamSynchronize(stream_), "moments");
  if (moments)
    check(cudaMemcpy2D(diagonal.data(), 4, moments, 4 * (cols + 1), 4, cols, cudaMemcpyDeviceToHost), "moments");
  double trace = 0;
  for (float x : diagonal) trace += static_cast<double>(x) * scale;
  const bool white = !(trace > 0);
  const double mean = white ? 1.0 : trace / static_cast<double>(cols);
  weights_->make_room(4 * width * width);
  float* a = to.at_least(width * width, "the factor of the moments");
  weights_->note_peak();
  check(arrange_moments(white ? nullptr : moments, scale, narrow(cols), order, narrow(n), narrow(width),
                        static_cast<float>(damping * mean), static_cast<float>(mean), a, stream_),
        "factoring moments");
  check(eliminate(a, narrow(width), static_cast<float>(0.5 * damping * mean),
                  work_.at_least(3 * kFactorBlock * width, "moments"), stream_),
        "factoring moments");
  return narrow(width);
}

std::vector<float> CudaAccelerator::factor(const Moments& moments, std::span<const uint32_t> order, double damping) {
  const uint64_t n = order.size();
  uint32_t* device_order = order_.at_least(n, "order");
  staging_->to_device(device_order, 4 * n, order.data(), 4 * n, 4 * n, 1);
  if (moments.held) {
    const auto& sums = *static_cast<const CudaSums*>(static_cast<const DeviceSums*>(moments.held.get()));
    factor_width_ = factor_into(factor_, sums.sums(), sums.inverse_tokens(), moments.cols, device_order, n, damping);
  } else {
    const uint64_t cols = moments.cols;
    DeviceMemory<float> values = weights_->allocate(cols * cols, "moments");
    staging_->to_device(values.get(), 4 * cols, moments.values.data(), 4 * cols, 4 * cols, cols);
    factor_width_ = factor_into(factor_, values.get(), 1, cols, device_order, n, damping);
    check(cudaStreamSynchronize(stream_), "factoring moments");
  }
  std::vector<float> variance(n);
  check(cudaStreamSynchronize(stream_), "factoring moments");
  check(cudaMemcpy2D(variance.data(), 4, factor_.get(), 4 * (factor_width_ + 1), 4, n, cudaMemcpyDeviceToHost),
        "factoring moments");
  for (uint64_t k = 0; k < n; ++k)
    if (order[k] >= moments.cols) variance[k] = 0;
  return variance;
}

namespace {

BlockSearch search_with(const TrellisTables& tables) {
  BlockSearch s{};
  s.bits = tables.bits;
  std::memcpy(s.level, tables.level, sizeof s.level);
  std::memcpy(s.step, tables.step, sizeof s.step);
  return s;
}

}  // namespace

void CudaAccelerator::search(const TrellisTables& tables, std::span<TrellisTile> tiles) {
  const uint64_t n = tiles.size(), rows = kLanes * n;
  std::vector<float> target(kBlock * rows), weight(kBlock * rows), scale(rows);
  for (uint64_t i = 0; i < n; ++i) {
    for (unsigned k = 0; k < kBlock; ++k) {
      std::copy_n(tiles[i].target[k], kLanes, target.data() + k * rows + i * kLanes);
      std::copy_n(tiles[i].weight[k], kLanes, weight.data() + k * rows + i * kLanes);
    }
    std::copy_n(tiles[i].scale, kLanes, scale.data() + i * kLanes);
  }
  const auto send = [&](Buffer<float>& to, const std::vector<float>& from) {
    float* device = to.at_least(from.size(), "tiles");
    staging_->to_device(device, 4 * from.size(), from.data(), 4 * from.size(), 4 * from.size(), 1);
    return device;
  };
  BlockSearch s = search_with(tables);
  s.rows = narrow(rows);
  s.stride = rows;
  s.target = s.original = send(target_, target);
  s.weights = send(importance_, weight);
  s.scale = send(row_values_, scale);
  s.words_stride = tables.bits * kLanes;
  s.words = words_.at_least(n * s.words_stride, "tiles");
  s.steps = steps_.at_least(rows, "tiles");
  check(search_block(s, narrow(properties_.sharedMemPerBlockOptin), stream_), "searching");
  std::vector<uint32_t> words(n * s.words_stride);
  std::vector<uint8_t> steps(rows);
  staging_->from_device(words.data(), 4 * words.size(), s.words, 4 * words.size(), 4 * words.size(), 1);
  staging_->from_device(steps.data(), rows, s.steps, rows, rows, 1);
  for (uint64_t i = 0; i < n; ++i)
    for (unsigned j = 0; j < kLanes; ++j) {
      tiles[i].step[j] = steps[i * kLanes + j];
      for (unsigned k = 0; k < kBlock; ++k)
        tiles[i].code[k][j] = static_cast<uint8_t>(trellis_code(words.data() + i * s.words_stride + j, kLanes,
                                                                tables.bits, k % kTrellisPlanes, k / kTrellisPlanes));
    }
}

void CudaAccelerator::encode(TrellisWork& w) {
  const uint64_t panels = ceil_div(w.rows, kLanes), rows = panels * kLanes, n = w.order.size(), blocks = n / kBlock;
  if (rows == 0 || n == 0) return;
  const unsigned bits = w.tables->bits;
  weights_->make_room(4 * (3 * n * rows + 2 * w.rows * w.cols));
  // Weights in the order of the chains, positions by rows.
  uint32_t* order = order_.at_least(n, "order");
  staging_->to_device(order, 4 * n, w.order.data(), 4 * n, 4 * n, 1);
  float* values = values_.at_least(w.rows * w.cols, "weights");
  float* factors = row_values_.at_least(4 * rows, "rows");
  check(cudaMemsetAsync(factors, 0, 16 * rows, stream_), "rows");
  float* scale = factors + rows;
  float* residual_scale = factors + 2 * rows;
  float* ones = factors + 3 * rows;
  const auto send_rows = [&](float* to, std::span<const float> from) {
    staging_->to_device(to, 4 * from.size(), from.data(), 4 * from.size(), 4 * from.size(), 1);
  };
  send_rows(factors, w.unit);
  send_rows(scale, w.scale);
  send_rows(residual_scale, w.residual_scale);
  const auto arrange = [&](std::span<const float> from, const float* factor, float* to) {
    staging_->to_device(values, 4 * w.cols, from.data(), 4 * w.cols, 4 * w.cols, w.rows);
    check(arrange_rows(values, narrow(w.rows), narrow(w.cols), order, narrow(n), factor, to, narrow(rows), stream_),
          "arranging weights");
  };
  float* original = original_.at_least(n * rows, "weights");
  arrange(w.weights, factors, original);
  float* target = original;
  if (w.feedback) {
    target = target_.at_least(n * rows, "weights");
    check(cudaMemcpyAsync(target, original, 4 * n * rows, cudaMemcpyDeviceToDevice, stream_), "weights");
  }
  BlockSearch s = search_with(*w.tables);
  const bool outliers = !w.importance.empty();
  float* importance = nullptr;
  if (outliers) {
    send_rows(ones, std::vector<float>(w.rows, 1.0f));
    importance = importance_.at_least(n * rows, "weights");
    arrange(w.importance, ones, importance);
    s.residual = residual_.at_least(n * rows, "weights");
    s.outlier_scale = residual_scale;
  }
  float* weight = work_.at_least(std::max<uint64_t>(n, 3 * kFactorBlock * (n + kFactorBlock)), "weights");
  if (w.feedback) {
    check(cudaMemcpy2DAsync(weight, 4, factor_.get(), 4 * (factor_width_ + 1), 4, n, cudaMemcpyDeviceToDevice, stream_),
          "weights");
    for (uint64_t k = 0; k < n; ++k)  // few: padding is in the last block
      if (w.order[k] >= w.cols) check(cudaMemsetAsync(weight + k, 0, 4, stream_), "weights");
  } else {
    std::vector<float> of_columns(n);  // the same for all rows
    for (uint64_t k = 0; k < n; ++k) of_columns[k] = w.order[k] < w.cols ? 1.0f : 0.0f;
    send_rows(weight, of_columns);
  }
  s.rows = narrow(rows);
  s.stride = rows;
  s.scale = scale;
  s.columns = narrow(w.cols);
  s.feedback_stride = factor_width_;
  s.words_stride = blocks * bits * kLanes;
  uint32_t* words = words_.at_least(panels * s.words_stride, "codes");
  uint8_t* steps = steps_.at_least(blocks * rows, "steps");
  double* row_error = nullptr;
  float* errors = nullptr;
  if (w.feedback) {
    row_error = row_error_.at_least(rows, "errors");
    check(cudaMemsetAsync(row_error, 0, 8 * rows, stream_), "errors");
    errors = errors_.at_least(rows * kFeedColumns, "errors");
  } else if (outliers) {
    errors = errors_.at_least(rows * kFeedColumns, "errors");
  }
  weights_->note_peak();
  const float* factor = factor_.get();
  int8_t* residual = s.residual;
  for (uint64_t b = 0; b < blocks; ++b) {
    const uint64_t begin = b * kBlock, first = begin / kFeedColumns * kFeedColumns, in_errors = begin - first;
    s.target = target + begin * rows;
    s.original = original + begin * rows;
    s.weight = outliers ? nullptr : weight + begin;
    s.weights = outliers ? importance + begin * rows : nullptr;
    s.feedback = w.feedback ? factor + begin * factor_width_ + begin : nullptr;
    s.order = order + begin;
    s.words = words + b * bits * kLanes;
    s.steps = steps + b * rows;
    s.errors = errors ? errors + in_errors : nullptr;
    s.errors_stride = kFeedColumns;
    s.row_error = row_error;
    s.residual = residual ? residual + begin * rows : nullptr;
    check(search_block(s, narrow(properties_.sharedMemPerBlockOptin), stream_), "searching");
    if (!w.feedback) continue;
    // Errors to the columns of this group one block at a time, to those after it all together.
    const uint64_t end = begin + kBlock, group_end = std::min(first + kFeedColumns, n);
    const bool last = end == group_end;
    const uint64_t from = last ? first : begin, to = last ? n : group_end;
    if (end == to) continue;
    const Gemm g{factor + end * factor_width_ + from,
                 errors + (from - first),
                 target + end * rows,
                 narrow(to - end),
                 narrow(rows),
                 narrow(end - from),
                 factor_width_,
                 kFeedColumns,
                 rows,
                 1,
                 true};
    check(multiply_dense(g, Precision::kFloat, stream_), "feeding errors");
  }
  uint8_t* scales = scales_.at_least(panels * blocks * kTrellisScaleBytes, "steps");
  check(pack_steps(steps, narrow(rows), narrow(blocks), scales, stream_), "packing");
  const uint64_t word_bytes = 4 * panels * s.words_stride, scale_bytes = panels * blocks * kTrellisScaleBytes;
  staging_->from_device(w.codes, word_bytes, words, word_bytes, word_bytes, 1);
  staging_->from_device(w.block_scales, scale_bytes, scales, scale_bytes, scale_bytes, 1);
  if (outliers) {
    std::vector<int8_t> by_position(n * rows);
    staging_->from_device(by_position.data(), rows, residual, rows, rows, n);
    pool_.each(n, [&](uint64_t k, unsigned) {
      if (w.order[k] < w.cols)
        for (uint64_t r = 0; r < w.rows; ++r) w.residual[r * w.cols + w.order[k]] = by_position[k * rows + r];
    });
  }
  w.weighted_error = 0;
  if (!w.feedback) return;
  std::vector<double> row_errors(rows);
  staging_->from_device(row_errors.data(), 8 * rows, row_error, 8 * rows, 8 * rows, 1);
  for (uint64_t r = 0; r < w.rows; ++r)
    if (w.unit[r] > 0) w.weighted_error += row_errors[r] / (static_cast<double>(w.unit[r]) * w.unit[r]);
}

}  // namespace

std::unique_ptr<Accelerator> open_accelerator(ThreadPool& pool) { return std::make_unique<CudaAccelerator>(pool); }

}  // namespace upg::cuda
