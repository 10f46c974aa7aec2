#include "engine/cpu_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <vector>

namespace upg {
namespace {

class CpuTimeline final : public Timeline {
 public:
  CpuTimeline(Model& model, OpContext& context, uint64_t capacity, const KvType& kv, std::shared_ptr<KvPool> pool,
              Activations activations)
      : model_(model),
        context_(context),
        cache_(model.shape().kv, capacity, kv, std::move(pool)),
        activations_(activations) {}

  uint64_t capacity() const override { return cache_.capacity(); }
  uint64_t length() const override { return cache_.length(); }
  uint64_t set_length(uint64_t length) override { return cache_.set_length(length); }
  uint64_t bytes_read_at(uint64_t position) const override { return cache_.bytes_read_at(position); }

  uint64_t chunk() const override { return Model::kChunk; }

  void forward(std::span<const int32_t> tokens, LogitsRange range, float* logits) override {
    model_.forward(context_, tokens, activations_, cache_, range, logits);
  }

  bool copy_from(const Timeline& other, uint64_t length) override {
    return cache_.copy_from(static_cast<const CpuTimeline&>(other).cache_, length);
  }

  std::vector<float> mean_hidden(std::span<const int32_t> tokens) override {
    const uint64_t width = model_.shape().hidden_size;
    std::vector<float> rows;
    std::vector<double> sums(width);
    set_length(0);
    for (uint64_t at = 0; at < tokens.size(); at += chunk()) {
      const std::span<const int32_t> piece = tokens.subspan(at, std::min(chunk(), tokens.size() - at));
      const float* x = model_.forward(context_, piece, activations_, Batch(cache_, piece.size()));
      rows.assign(x, x + piece.size() * width);
      model_.final_norm(context_, piece.size(), rows.data());
      for (size_t i = 0; i < rows.size(); ++i) sums[i % width] += rows[i];
    }
    set_length(0);
    std::vector<float> mean(width);
    for (uint64_t i = 0; i < width; ++i) mean[i] = static_cast<float>(sums[i] / static_cast<double>(tokens.size()));
    return mean;
  }

  void list_blocks(std::set<const void*>& blocks) const override { cache_.list_blocks(blocks); }

  KvCache& cache() { return cache_; }
  Activations activations() const { return activations_; }

  void fill(uint64_t n) override { cache_.fill(n); }

 private:
  Model& model_;
  OpContext& context_;
  KvCache cache_;
  Activations activations_;
};

}  // namespace

std::string CpuDevice::description() const { return fmt::format("CPU, {} threads", context_.pool.size()); }

std::unique_ptr<Timeline> CpuDevice::timeline(uint64_t capacity, const KvType& kv, Activations activations) {
  return std::make_unique<CpuTimeline>(model_, context_, capacity, kv, pool_, activations);
}

void CpuDevice::forward(std::span<const Work> work) {
  std::vector<Batch::Run> runs;
  std::vector<int32_t> tokens;
  for (const Work& w : work) {
    runs.push_back({&static_cast<CpuTimeline*>(w.timeline)->cache(), w.tokens.size()});
    tokens.insert(tokens.end(), w.tokens.begin(), w.tokens.end());
  }
  const Activations activations = static_cast<CpuTimeline*>(work[0].timeline)->activations();
  const float* x = model_.forward(context_, tokens, activations, Batch(std::move(runs)));

  // One product with the head for all rows that are wanted.
  const uint64_t width = model_.shape().hidden_size, vocab = model_.shape().vocab_size;
  hidden_.clear();
  uint64_t at = 0;
  for (const Work& w : work) {
    hidden_.insert(hidden_.end(), x + (at + w.rows().begin) * width, x + (at + w.rows().end) * width);
    at += w.tokens.size();
  }
  const uint64_t rows = hidden_.size() / width;
  if (rows == 0) return;
  logits_.resize(rows * vocab);
  model_.head(context_, rows, activations, hidden_.data(), logits_.data());
  const float* row = logits_.data();
  for (const Work& w : work) {
    const uint64_t n = (w.rows().end - w.rows().begin) * vocab;
    std::copy_n(row, n, w.all_logits());
    row += n;
  }
}

double CpuDevice::measure_bandwidth() {
  if (!bandwidth_) bandwidth_ = std::make_unique<ReadBandwidth>();
  return bandwidth_->measure(context_.pool);
}

uint64_t CpuDevice::memory_bytes() const {
  std::FILE* status = std::fopen("/proc/self/status", "r");
  if (!status) return 0;
  char line[256];
  unsigned long long kib = 0;
  while (std::fgets(line, sizeof line, status))
    if (std::sscanf(line, "VmRSS: %llu", &kib) == 1) break;
  std::fclose(status);
  return kib * 1024;
}

}  // namespace upg
