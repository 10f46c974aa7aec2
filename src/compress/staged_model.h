// A model run one stage at a time, with weights that can be watched and replaced: what calibration and the measurement
// of sensitivity are made of.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "codec/codec.h"
#include "model/model.h"

namespace upg {

class StagedModel final : public WeightHook {
 public:
  /// Runs at most `longest` tokens at a time. After each run `release` is called with the names of the original weights
  /// that it read: their pages need not stay in memory. All must outlive this; model and context are not used by others
  /// meanwhile.
  StagedModel(Model& model, OpContext& context, uint64_t longest, std::function<void(const std::string&)> release);
  ~StagedModel() override;

  const ModelShape& shape() const { return model_.shape(); }
  /// The embedding, each layer, the head.
  uint64_t stages() const { return model_.shape().layers + 2; }
  uint64_t head() const { return stages() - 1; }

  /// The residual stream x [tokens, hidden_size] through one stage, in place. The head leaves it as it is.
  void run(uint64_t stage, std::span<const int32_t> tokens, float* x);
  /// logits [n_tokens, vocab_size].
  void logits(const float* x, uint64_t n_tokens, float* logits);

  /// What a stage multiplies by, in order of use. No product is computed.
  std::vector<const Linear*> weights_of(uint64_t stage);

  /// Whether any token has gone through a weight so far: experts may have been given none.
  bool reached(const Linear& linear) const { return reached_.contains(&linear); }

  /// From now on `name` is `encoded`, which must outlive its use, until restore().
  void replace(const std::string& name, const EncodedMatrix& encoded);
  void restore();
  /// Whether replacements count; true at first.
  void use_replacements(bool use) { use_replacements_ = use; }

  /// While set, see(x, n_tokens, which) is called with what enters the product of `name`, and neither that product nor
  /// those after it in the stage are computed: their results are 0. `which` of the tokens of the pass they are,
  /// ascending; empty: all.
  using See = std::function<void(const float* x, uint64_t n_tokens, std::span<const uint32_t> which)>;
  void watch(const std::string& name, See see);
  void unwatch() { see_ = nullptr; }

 private:
  void release_read();
  const Linear* before(const Linear& linear, const float* x, uint64_t n_tokens) override;
  bool sees(const Linear& linear) const override { return see_ && !seen_ && linear.name() == watched_; }

  Model& model_;
  OpContext& context_;
  KvCache cache_;
  std::map<std::string, std::unique_ptr<Linear>> replacements_;
  bool use_replacements_ = true;
  std::string watched_;
  See see_;
  bool seen_ = false;
  std::vector<const Linear*>* list_ = nullptr;
  std::vector<float> logits_;
  std::function<void(const std::string&)> release_;
  std::set<const Linear*> read_;     // originals, since the last release
  std::set<const Linear*> reached_;  // that some token was multiplied with
};

}  // namespace upg
