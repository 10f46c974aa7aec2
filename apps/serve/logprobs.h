// Log-probabilities in the two forms of OpenAI: of chats and of completions.
#pragma once

#include <string>
#include <vector>

#include "json_reader.h"
#include "upg/engine.h"
#include "upg/scheduler.h"

namespace upg::serve {

/// One entry of choices[].logprobs.content for each token.
Json chat_logprobs(const Engine& engine, const std::vector<TokenLogprob>& logprobs, uint32_t top);

/// choices[].logprobs of /v1/completions, filled piece by piece.
class CompletionLogprobs {
 public:
  CompletionLogprobs(const Engine& engine, uint32_t top) : engine_(engine), top_(top) {}
  /// A token without a log-probability: the first of a prompt.
  void add_first(int32_t token);
  void add(const std::vector<TokenLogprob>& logprobs);
  /// What was added since the last call; offsets go on.
  Json take();

 private:
  void add_token(int32_t token);

  const Engine& engine_;
  uint32_t top_;
  uint64_t offset_ = 0;  // in characters of the text
  Json tokens_ = Json::array(), values_ = Json::array(), tops_ = Json::array(), offsets_ = Json::array();
};

}  // namespace upg::serve
