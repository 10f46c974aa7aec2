// The processor as a device: the model's own forward pass over a KvCache.
#pragma once

#include <memory>
#include <string>

#include "base/bandwidth.h"
#include "model/timeline.h"

namespace upg {

class CpuDevice final : public Device {
 public:
  CpuDevice(Model& model, OpContext& context) : model_(model), context_(context) {}
  std::string description() const override;
  std::unique_ptr<Timeline> timeline(uint64_t capacity, const KvType& kv, Activations activations) override;
  void forward(std::span<const Work> work) override;
  double measure_bandwidth() override;
  std::string_view bandwidth_kind() const override { return "reads"; }
  uint64_t memory_bytes() const override;
  uint64_t blocks_held() const override { return pool_->blocks_held(); }

 private:
  Model& model_;
  OpContext& context_;
  std::shared_ptr<KvPool> pool_ = std::make_shared<KvPool>();  // of all timelines
  std::vector<float> hidden_, logits_;                         // of forward()
  std::unique_ptr<ReadBandwidth> bandwidth_;                   // made when it is asked for
};

}  // namespace upg
