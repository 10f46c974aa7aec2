#include "compress/calibrator.h"

#include <algorithm>

#include "base/checked.h"
#include "compress/divergence.h"
#include "kernels/kernel.h"

namespace upg {
namespace {

constexpr uint64_t kPanel = 16;
constexpr uint64_t kTile = 96;  // rows of the sums that one work item computes
constexpr uint64_t kLossTokens = 64;

uint64_t padded(uint64_t cols) { return ceil_div(cols, 2 * kPanel) * 2 * kPanel; }

// What entered a product: of these tokens of the pass, ascending; values [which.size(), cols].
struct Seen {
  std::vector<uint32_t> which;
  std::vector<float> values;
};

// out = original - input for each token of the input; 0 for those that a router sent elsewhere in the original.
void difference(ThreadPool& pool, const Seen& original, const Seen& input, uint64_t cols, std::vector<float>& out) {
  out.resize(input.which.size() * cols);
  pool.split(input.which.size(), 8, [&](uint64_t begin, uint64_t end, unsigned) {
    for (uint64_t i = begin; i < end; ++i) {
      const auto same = std::lower_bound(original.which.begin(), original.which.end(), input.which[i]);
      float* d = out.data() + i * cols;
      if (same == original.which.end() || *same != input.which[i]) {
        std::fill_n(d, cols, 0.0f);
        continue;
      }
      const float* o = original.values.data() + static_cast<uint64_t>(same - original.which.begin()) * cols;
      for (uint64_t c = 0; c < cols; ++c) d[c] = o[c] - input.values[i * cols + c];
    }
  });
}

}  // namespace

Calibrator::Calibrator(StagedModel& model, OpContext& context, const std::vector<std::vector<int32_t>>& sequences,
                       uint64_t held_out, std::function<void()> tick)
    : model_(model),
      context_(context),
      sequences_(sequences),
      gathered_(sequences.size() - std::min<uint64_t>(held_out, sequences.size())),
      tick_(std::move(tick)) {
  for (const auto& sequence : sequences_) streams_.emplace_back(sequence.size() * model_.shape().hidden_size);
  originals_ = streams_;
}

InputStatistics Calibrator::statistics(const Linear& linear) {
  if (stage_ == 0) return {};
  const uint64_t cols = linear.cols();
  const uint64_t hidden = model_.shape().hidden_size;
  std::vector<float> moments, drift, stream_drift;
  std::shared_ptr<DeviceSums> on_device;
  if (context_.accelerator) {
    on_device = context_.accelerator->sums(cols, linear.to_stream() ? hidden : 0);
  } else {
    moments.resize(cols * padded(cols));
    drift.resize(cols * padded(cols));
    if (linear.to_stream()) stream_drift.resize(hidden * padded(cols));
  }
  Seen original_input, input;
  std::vector<float> original, stream, drifted;
  uint64_t n_tokens = 0;
  for (uint64_t s = 0; s < gathered_; ++s) {
    tick_();
    const std::vector<int32_t>& tokens = sequences_[s];
    auto run = [&](const std::vector<float>& from, Seen& seen, std::vector<float>& x) {
      seen.which.clear();
      uint64_t filled = 0;
      model_.watch(linear.name(), [&](const float* in, uint64_t n, std::span<const uint32_t> of_pass) {
        seen.values.resize(std::max(seen.values.size(), (filled + n) * cols));
        float* to = seen.values.data() + filled * cols;
        context_.pool.split(n * cols, 1 << 14, [&](uint64_t begin, uint64_t end, unsigned) {
          std::copy(in + begin, in + end, to + begin);
        });
        filled += n;
        for (uint64_t i = 0; i < n; ++i)
          seen.which.push_back(of_pass.empty() ? static_cast<uint32_t>(seen.which.size()) : of_pass[i]);
      });
      x = from;
      model_.run(stage_, tokens, x.data());
      model_.unwatch();
    };
    model_.use_replacements(false);
    run(originals_[s], original_input, original);
    model_.use_replacements(true);
    run(streams_[s], input, stream);

    const uint64_t n = input.which.size();
    difference(context_.pool, original_input, input, cols, drifted);
    // The products from this one on were not computed: what came out is the stream that this one is added to.
    if (linear.to_stream())
      for (size_t i = 0; i < stream.size(); ++i) original[i] -= stream[i];
    if (on_device) {
      on_device->add(input.values.data(), drifted.data(), n);
      if (linear.to_stream()) on_device->add_stream(original.data());
    } else {
      pack(input.values.data(), cols, n);
      add_products(input.values.data(), cols, cols, n, true, moments);
      add_products(drifted.data(), cols, cols, n, false, drift);
      if (linear.to_stream()) add_products(original.data(), hidden, cols, tokens.size(), false, stream_drift);
    }
    n_tokens += n;
  }
  if (on_device) {
    InputStatistics statistics;
    statistics.moments.cols = cols;
    statistics.moments.held = on_device;
    statistics.n_tokens = n_tokens;
    statistics.on_device = std::move(on_device);
    return statistics;
  }
  const float scale = n_tokens ? 1.0f / static_cast<float>(n_tokens) : 0.0f;
  auto mean = [&](std::vector<float>& sums) {  // without the padding
    const uint64_t rows = sums.size() / padded(cols);
    for (uint64_t r = 0; r < rows; ++r)
      for (uint64_t c = 0; c < cols; ++c) sums[r * cols + c] = sums[r * padded(cols) + c] * scale;
    sums.resize(rows * cols);
    return std::move(sums);
  };
  return {{cols, mean(moments), nullptr}, mean(drift), mean(stream_drift), n_tokens, nullptr};
}

void Calibrator::replace(const std::string& name, EncodedMatrix encoded) {
  EncodedMatrix& kept = encoded_[name];
  kept = std::move(encoded);
  model_.replace(name, kept);
}

void Calibrator::advance() {
  if (stage_ == model_.head()) {
    measure_loss();
  } else {
    for (uint64_t s = 0; s < sequences_.size(); ++s) {
      tick_();
      model_.use_replacements(false);
      model_.run(stage_, sequences_[s], originals_[s].data());
      model_.use_replacements(true);
      model_.run(stage_, sequences_[s], streams_[s].data());
    }
  }
  model_.restore();
  encoded_.clear();
  ++stage_;
}

void Calibrator::measure_loss() {
  const uint64_t hidden = model_.shape().hidden_size;
  const uint64_t vocab = model_.shape().vocab_size;
  std::vector<float> reference(kLossTokens * vocab), other(kLossTokens * vocab);
  double sum = 0;
  uint64_t n_tokens = 0;
  for (uint64_t s = gathered_; s < sequences_.size(); ++s) {
    tick_();
    for (uint64_t t = 0; t < sequences_[s].size(); t += kLossTokens) {
      const uint64_t n = std::min<uint64_t>(kLossTokens, sequences_[s].size() - t);
      model_.use_replacements(false);
      model_.logits(originals_[s].data() + t * hidden, n, reference.data());
      model_.use_replacements(true);
      model_.logits(streams_[s].data() + t * hidden, n, other.data());
      sum += Predictions(reference.data(), n, vocab).divergence(0, other.data(), n);
      n_tokens += n;
    }
  }
  measured_loss_ = n_tokens ? sum / static_cast<double>(n_tokens) : 0.0;
}

// panels_ := x as the left operand of the product kernel, [cols / 16][tokens][16].
void Calibrator::pack(const float* x, uint64_t cols, uint64_t n_tokens) {
  panels_.assign(padded(cols) * n_tokens, 0.0f);
  context_.pool.split(cols, kPanel, [&](uint64_t begin, uint64_t end, unsigned) {
    float* panel = panels_.data() + begin * n_tokens;
    for (uint64_t c = begin; c < end; ++c)
      for (uint64_t t = 0; t < n_tokens; ++t)
        panel[(c - begin) / kPanel * n_tokens * kPanel + t * kPanel + c % kPanel] = x[t * cols + c];
  });
}

// sums[r][c] += sum_t rows[t][r] x[t][c], x [n_tokens, cols] as packed; `lower`: only c <= r is wanted.
void Calibrator::add_products(const float* rows, uint64_t n_rows, uint64_t cols, uint64_t n_tokens, bool lower,
                              std::vector<float>& sums) {
  transposed_.resize(n_rows * n_tokens);
  context_.pool.split(n_rows, kPanel, [&](uint64_t begin, uint64_t end, unsigned) {
    for (uint64_t r = begin; r < end; ++r)
      for (uint64_t t = 0; t < n_tokens; ++t) transposed_[r * n_tokens + t] = rows[t * n_rows + r];
  });
  const auto gemm = kernels::select(kernels::gemm_kernels(), "f32").run;
  const uint64_t stride = padded(cols);
  context_.pool.each(ceil_div(n_rows, kTile), [&](uint64_t tile, unsigned) {
    const uint64_t begin = tile * kTile;
    const uint64_t end = std::min(begin + kTile, n_rows);
    for (uint64_t c = 0; c < (lower ? end : cols); c += 2 * kPanel)
      gemm({panels_.data() + c * n_tokens, transposed_.data() + begin * n_tokens, sums.data() + begin * stride + c, 2,
            n_tokens, end - begin, n_tokens, stride});
  });
}

}  // namespace upg
