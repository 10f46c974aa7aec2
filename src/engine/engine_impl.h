// What stands behind the public Engine.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/model.h"
#include "model/timeline.h"
#include "model/weights.h"
#include "ops/linear.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "upg/engine.h"

namespace upg {

class GrammarCache;

struct Engine::Impl {
  Impl(const std::string& path, const EngineOptions& options);
  ~Impl();
  const Tokenizer& require_tokenizer() const;

  Weights weights;
  OpContext context;
  std::unique_ptr<Model> model;
  std::unique_ptr<Device> device;
  std::unique_ptr<Tokenizer> tokenizer;         // nullptr where the model has none
  std::unique_ptr<ChatTemplate> chat_template;  // the same
  ModelInfo info;
  SamplingOptions sampling;
  std::vector<int32_t> end_tokens;
  std::unique_ptr<GrammarCache> grammars;  // nullptr without a tokenizer
};

/// What a session of these options runs on. Throws Error.
std::unique_ptr<Timeline> make_timeline(const Engine& engine, const SessionOptions& options);

}  // namespace upg
