// A request in the scheduler: what it has read and said so far, and the pieces that wait for its reader.
#pragma once

#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine_impl.h"
#include "engine/stop_filter.h"
#include "text/detokenizer.h"
#include "text/sampler.h"
#include "upg/grammar.h"
#include "upg/scheduler.h"

namespace upg {

class Job {
 public:
  /// Throws Error(kInvalidArgument) for sampling options out of range or an empty stop string.
  Job(const Engine& engine, GenerationRequest request);

  // For the reader, from any thread.
  std::optional<GenerationPiece> next(std::chrono::milliseconds timeout);
  bool wait_begun(std::chrono::milliseconds timeout);
  void cancel() { cancelled_ = true; }
  const GenerateResult& result() const { return result_; }
  uint64_t cached_tokens() const { return cached_; }

  // For the scheduler's thread.
  const GenerationRequest& request() const { return request_; }
  bool cancelled() const { return cancelled_; }
  bool ended() const { return ended_; }
  /// Has a place. The prompt's first `cached` tokens need not be read.
  void begin(uint64_t cached);
  double seconds_held() const;  // since then
  /// What is to be run next: the rest of the prompt, or the last token.
  std::span<const int32_t> pending() const;
  bool reading_prompt() const { return read_ < request_.prompt.size(); }
  uint64_t unread() const { return request_.prompt.size() - read_; }  // of the prompt
  bool wants_all_rows() const { return request_.prompt_logprobs && reading_prompt(); }
  /// Whether candidates for the next token are not enough.
  bool wants_logits() const { return matcher_ || request_.logprobs; }
  /// What the next choice needs to know where they are. Valid until it is made.
  CandidateRequest choice() { return sampler_.request(); }
  /// n pending tokens were run. `rows` [n or 1, vocab_size]: logits after each of them where wants_all_rows(), else
  /// after the last; empty where the prompt goes on and nobody wants them. `room`: positions left.
  void advance(uint64_t n, std::span<const float> rows, uint64_t room);
  /// The same with what a device gave for choice(). Returns false where choose() must follow: nothing else has been
  /// left out.
  bool advance(uint64_t n, const Candidates& next, uint64_t room);
  /// The next token, from all logits [vocab_size].
  void choose(std::span<const float> logits, uint64_t room);
  void finish(FinishReason reason);
  void fail_with(std::exception_ptr error);

  std::chrono::steady_clock::time_point deadline{};  // of waiting for a place

 private:
  bool read_on(uint64_t n);
  void say(int32_t token, std::span<const float> logits, uint64_t room);
  TokenLogprob logprob_of(int32_t token, std::span<const float> logits) const;
  void put(GenerationPiece piece);

  const Engine& engine_;
  GenerationRequest request_;
  Sampler sampler_;
  StreamDetokenizer detokenizer_;
  StopFilter stops_;
  std::vector<int32_t> ends_;
  std::optional<GrammarMatcher> matcher_;
  std::vector<float> masked_;  // logits under the grammar
  uint64_t read_ = 0;          // tokens of the prompt
  uint64_t cached_ = 0;
  int32_t last_ = 0;
  bool ended_ = false;
  GenerateResult result_;
  std::chrono::steady_clock::time_point began_{}, phase_began_{};
  std::atomic<bool> cancelled_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<GenerationPiece> waiting_;  // what the reader has not taken
  bool begun_ = false, closed_ = false;
  std::exception_ptr error_;
};

}  // namespace upg
