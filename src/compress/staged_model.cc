#include "compress/staged_model.h"

#include <algorithm>

#include "ops/accelerator.h"

namespace upg {
namespace {

constexpr uint64_t kHeadTokens = 64;  // logits are wide: few tokens at a time

}  // namespace

StagedModel::StagedModel(Model& model, OpContext& context, uint64_t longest,
                         std::function<void(const std::string&)> release)
    : model_(model),
      context_(context),
      cache_(model.shape().kv, longest, find_kv_type("f32")),
      release_(std::move(release)) {
  context_.hook = this;
}

StagedModel::~StagedModel() { context_.hook = nullptr; }

void StagedModel::run(uint64_t stage, std::span<const int32_t> tokens, float* x) {
  seen_ = false;
  if (stage == 0) {
    model_.embed(context_, tokens, x);
    return release_read();
  }
  if (stage < head()) {
    const bool on_device =
        context_.accelerator != nullptr && list_ == nullptr &&
        context_.accelerator->run_layer(model_.decoder(), stage - 1, cache_.capacity(), tokens.size(), x, *this);
    if (!on_device) model_.layer(context_, stage - 1, Batch(cache_, tokens.size()), Activations::kFloat, x);
    return release_read();
  }
  if (!see_ && !list_) return;
  logits_.resize(kHeadTokens * shape().vocab_size);
  for (uint64_t t = 0; t < tokens.size(); t += kHeadTokens) {
    seen_ = false;
    const uint64_t n = std::min<uint64_t>(kHeadTokens, tokens.size() - t);
    model_.head(context_, n, Activations::kFloat, x + t * shape().hidden_size, logits_.data());
  }
}

void StagedModel::logits(const float* x, uint64_t n_tokens, float* logits) {
  seen_ = false;
  model_.head(context_, n_tokens, Activations::kFloat, x, logits);
  release_read();
}

void StagedModel::release_read() {
  for (const Linear* linear : read_) release_(linear->name());
  read_.clear();
}

std::vector<const Linear*> StagedModel::weights_of(uint64_t stage) {
  std::vector<const Linear*> list;
  std::vector<float> x(shape().hidden_size);
  const int32_t token = 0;
  list_ = &list;
  run(stage, std::span(&token, 1), x.data());
  list_ = nullptr;
  return list;
}

void StagedModel::replace(const std::string& name, const EncodedMatrix& encoded) {
  const auto before = replacements_.find(name);
  if (before != replacements_.end() && context_.accelerator != nullptr) context_.accelerator->forget(*before->second);
  replacements_[name] = std::make_unique<Linear>(open_encoded(encoded));
}

void StagedModel::restore() {
  if (context_.accelerator != nullptr)
    for (const auto& [name, linear] : replacements_) context_.accelerator->forget(*linear);
  replacements_.clear();
}

void StagedModel::watch(const std::string& name, See see) {
  watched_ = name;
  see_ = std::move(see);
}

const Linear* StagedModel::before(const Linear& linear, const float* x, uint64_t n_tokens) {
  if (list_) {
    if (std::find(list_->begin(), list_->end(), &linear) == list_->end()) list_->push_back(&linear);
    return nullptr;
  }
  if (n_tokens > 0) reached_.insert(&linear);
  if (see_) {
    if (seen_) return nullptr;
    if (linear.name() == watched_) {
      seen_ = true;
      see_(x, n_tokens, context_.routed);
      return nullptr;
    }
  }
  if (use_replacements_) {
    const auto replaced = replacements_.find(linear.name());
    if (replaced != replacements_.end()) return replaced->second.get();
  }
  read_.insert(&linear);
  return &linear;
}

}  // namespace upg
