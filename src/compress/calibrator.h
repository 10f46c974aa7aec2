// Takes calibration text through a model stage by stage, twice: as the original computes it, and with the weights
// compressed so far in place. Memory: two residual streams of the text, the statistics of one matrix, and the
// compressed weights of one stage.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "compress/staged_model.h"
#include "ops/accelerator.h"

namespace upg {

/// What enters a product y = W x in the compressed model (x) and in the original (o), over the calibration text.
struct InputStatistics {
  Moments moments;                  // E[x x^T]
  std::vector<float> drift;         // [cols, cols]: E[(o - x) x^T]
  std::vector<float> stream_drift;  // [rows, cols]: E[(residual stream - that of the compressed model) x^T] where the
                                    // product is added to the stream; else empty
  uint64_t n_tokens = 0;            // they are means over; 0: no token went through
  std::shared_ptr<DeviceSums> on_device;  // has all of them instead, where there is an accelerator
};

class Calibrator {
 public:
  /// `sequences` of valid tokens, each at least one; the last `held_out` of them only measure the loss in the end.
  /// `tick` is called now and then, from the calling thread, and may throw. All must outlive the calibrator.
  Calibrator(StagedModel& model, OpContext& context, const std::vector<std::vector<int32_t>>& sequences,
             uint64_t held_out, std::function<void()> tick);

  bool done() const { return stage_ == model_.stages(); }
  /// What the current stage multiplies by, in order of use.
  std::vector<const Linear*> weights() const { return model_.weights_of(stage_); }
  /// Of a weight of this stage, with those replaced that have been. Moments are empty for the embedding.
  InputStatistics statistics(const Linear& linear);
  /// From now on the stage runs with `encoded`.
  void replace(const std::string& name, EncodedMatrix encoded);
  /// Runs all text through the current stage and goes to the next. After the last: measures the loss.
  void advance();

  /// When done: mean KL divergence in nats of a token's prediction from the original's, on the text held out.
  double measured_loss() const { return measured_loss_; }

 private:
  void add_products(const float* rows, uint64_t n_rows, uint64_t cols, uint64_t n_tokens, bool lower,
                    std::vector<float>& sums);
  void pack(const float* x, uint64_t cols, uint64_t n_tokens);
  void measure_loss();

  StagedModel& model_;
  OpContext& context_;
  const std::vector<std::vector<int32_t>>& sequences_;
  uint64_t gathered_;  // sequences that statistics are taken of
  std::function<void()> tick_;
  std::vector<std::vector<float>> streams_, originals_;  // [sequence]: [tokens, hidden]
  uint64_t stage_ = 0;
  std::map<std::string, EncodedMatrix> encoded_;
  double measured_loss_ = 0;
  std::vector<float> panels_, transposed_;  // operands of add_products()
};

}  // namespace upg
