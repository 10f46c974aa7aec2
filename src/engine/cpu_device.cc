#include "engine/cpu_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

namespace upg {
namespace {

class CpuTimeline final : public Timeline {
 public:
  CpuTimeline(Model& model, OpContext& context, uint64_t capacity, const KvType& kv, Activations activations)
      : model_(model), context_(context), cache_(model.shape().kv, capacity, kv), activations_(activations) {}

  uint64_t capacity() const override { return cache_.capacity(); }
  uint64_t length() const override { return cache_.length(); }
  uint64_t set_length(uint64_t length) override { return cache_.set_length(length); }
  uint64_t bytes_read_at(uint64_t position) const override { return cache_.bytes_read_at(position); }

  uint64_t chunk() const override { return 512; }

  void forward(std::span<const int32_t> tokens, LogitsRange range, float* logits) override {
    model_.forward(context_, tokens, activations_, cache_, range, logits);
  }

  int32_t forward_greedy(int32_t token) override {
    logits_.resize(model_.shape().vocab_size);
    forward(std::span(&token, 1), {0, 1}, logits_.data());
    return static_cast<int32_t>(std::max_element(logits_.begin(), logits_.end()) - logits_.begin());
  }

  void fill(uint64_t n) override {
    uint64_t longest = 0;
    for (const KvLayer& layer : model_.shape().kv.layers) longest = std::max({longest, layer.key_dim, layer.value_dim});
    std::mt19937 random;
    std::normal_distribution<float> normal;
    std::vector<float> vector(longest);
    for (float& x : vector) x = normal(random);
    cache_.fill(n, vector.data(), vector.data());
  }

 private:
  Model& model_;
  OpContext& context_;
  KvCache cache_;
  Activations activations_;
  std::vector<float> logits_;
};

}  // namespace

std::string CpuDevice::description() const { return fmt::format("CPU, {} threads", context_.pool.size()); }

std::unique_ptr<Timeline> CpuDevice::timeline(uint64_t capacity, const KvType& kv, Activations activations) {
  return std::make_unique<CpuTimeline>(model_, context_, capacity, kv, activations);
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
