// Many requests on one engine at the same time: they join a running batch and leave it between steps, prompts are read
// in pieces beside those that generate, and what a prompt shares with an earlier one is not read again.
//
//   upg::Scheduler scheduler(engine, {.parallel = 8});
//   auto generation = scheduler.submit({.prompt = engine->tokenize("Once upon a time")});
//   while (auto piece = generation->next(std::chrono::seconds(1))) std::cout << piece->text;
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "upg/engine.h"
#include "upg/error.h"

namespace upg {

struct SchedulerOptions {
  unsigned parallel = 4;                 // requests that run together
  SessionOptions session{};              // of each; its context is what one request may fill
  uint64_t queue = 64;                   // requests that may wait besides, and
  std::chrono::seconds queue_time{600};  // how long; more are refused with BusyError
};

/// There is no room for a request now. Once one had to be refused, nothing waits any more until the load has gone: a
/// request is taken where its first token can come about as soon as from an idle engine, and refused otherwise.
class BusyError : public Error {
 public:
  BusyError(const std::string& message, std::chrono::seconds retry_after)
      : Error(ErrorCode::kBusy, message), retry_after_(retry_after) {}
  std::chrono::seconds retry_after() const noexcept { return retry_after_; }  // when a place is expected, at least 1

 private:
  std::chrono::seconds retry_after_;
};

struct GenerationRequest {
  std::vector<int32_t> prompt;
  GenerateOptions options{};     // its `progress` is not used
  std::string client{};          // requests of different clients take turns
  bool logprobs = false;         // of each generated token, and
  uint32_t top_logprobs = 0;     // of so many likeliest ones in its place
  bool prompt_logprobs = false;  // the same of each token of the prompt but the first
  bool more = false;  // beside others of its caller, who can wait with it: a refusal is no sign of overload
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;                             // natural logarithm, before grammar, temperature and penalties
  std::vector<std::pair<int32_t, float>> top{};  // likeliest first
};

/// What a generation has said since the last piece.
struct GenerationPiece {
  std::string text;                           // whole characters; may be empty
  std::vector<int32_t> tokens;                // generated since; their text may come with a later piece
  std::vector<TokenLogprob> logprobs;         // of `tokens`, where asked for
  std::vector<TokenLogprob> prompt_logprobs;  // with the first piece, where asked for
};

/// A request that was taken. All functions may be called from any thread.
class Generation {
 public:
  virtual ~Generation() = default;  // cancels
  /// Waits for the next piece, at most `timeout`: then the piece is empty. nullopt at the end. Throws the Error that
  /// ended the generation, if one did.
  virtual std::optional<GenerationPiece> next(std::chrono::milliseconds timeout) = 0;
  /// Waits until it has a place, at most `timeout`; whether it has one, or has ended. Throws BusyError where it waited
  /// in vain, or the Error that ended the generation.
  virtual bool wait_begun(std::chrono::milliseconds timeout) = 0;
  /// Ends it before its next token.
  virtual void cancel() = 0;
  /// After the end.
  virtual const GenerateResult& result() const = 0;
  virtual uint64_t cached_tokens() const = 0;  // of the prompt, that were not read again
};

struct SchedulerStatistics {
  uint64_t running = 0, waiting = 0;
  uint64_t overloaded = 0;                     // 1 while nothing may wait
  uint64_t positions_used = 0, positions = 0;  // of keys and values; kept ones of earlier requests count as used
  uint64_t blocks_held = 0;  // that keys and values lie in, shared ones counted once; 0 where the device has none
  uint64_t blocks_kept = 0;  // when last nothing ran: those kept of earlier requests
  uint64_t requests = 0, refused = 0, cancelled = 0;
  uint64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  uint64_t steps = 0;
};

class Scheduler {
 public:
  /// Starts a thread, which alone uses the engine until the scheduler goes. Throws Error.
  explicit Scheduler(std::shared_ptr<Engine> engine, const SchedulerOptions& options = {});
  /// Cancels what runs.
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;

  uint64_t context() const;  // positions one request may fill
  const Engine& engine() const;

  /// Throws BusyError where a request with a prompt of so many tokens would be refused now. Cheap: to be asked before a
  /// prompt is made.
  void check_room(uint64_t prompt_tokens);

  /// Throws BusyError where there is no room, Error(kBusy) after drain(), Error(kInvalidArgument) for a prompt that is
  /// empty, has an unknown id, or is longer than the context (the message has both numbers), and for sampling options
  /// out of range. On the CPU the same request with the same seed gives the same text whatever runs beside it.
  std::shared_ptr<Generation> submit(GenerationRequest request);

  /// The mean of the final hidden states of `tokens` [hidden_size], after the last norm. Waits for its turn. Errors as
  /// submit().
  std::vector<float> embed(std::span<const int32_t> tokens);

  SchedulerStatistics statistics() const;
  /// Takes no more requests and waits for those it has, at most so long. Returns whether all ended.
  bool drain(std::chrono::milliseconds timeout);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace upg
