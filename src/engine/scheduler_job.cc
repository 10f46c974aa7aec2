#include "engine/scheduler_job.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace upg {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Job::Job(const Engine& engine, GenerationRequest request)
    : engine_(engine),
      request_(std::move(request)),
      sampler_(request_.options.sampling, engine.info().vocab_size),
      detokenizer_(engine.impl().require_tokenizer()),
      stops_(request_.options.stop),
      ends_(engine.end_tokens()) {
  ends_.insert(ends_.end(), request_.options.end_tokens.begin(), request_.options.end_tokens.end());
  if (request_.options.ignore_eos) ends_.clear();
  if (request_.options.grammar) matcher_.emplace(request_.options.grammar);
  for (int32_t token : request_.prompt) sampler_.saw(token);
  result_.prompt_tokens = request_.prompt.size();
}

std::optional<GenerationPiece> Job::next(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return waiting_ || closed_; });
  if (waiting_) {
    GenerationPiece piece = std::move(*waiting_);
    waiting_.reset();
    return piece;
  }
  if (!closed_) return GenerationPiece{};
  if (error_) std::rethrow_exception(error_);
  return std::nullopt;
}

bool Job::wait_begun(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return begun_ || closed_; });
  if (error_) std::rethrow_exception(error_);
  return begun_ || closed_;
}

void Job::put(GenerationPiece piece) {
  {
    const std::scoped_lock lock(mutex_);
    if (!waiting_) waiting_.emplace();
    waiting_->text += piece.text;
    const auto append = [](auto& to, auto& from) { std::move(from.begin(), from.end(), std::back_inserter(to)); };
    append(waiting_->tokens, piece.tokens);
    append(waiting_->logprobs, piece.logprobs);
    append(waiting_->prompt_logprobs, piece.prompt_logprobs);
  }
  changed_.notify_all();
}

void Job::begin(uint64_t cached) {
  read_ = cached_ = cached;
  began_ = phase_began_ = std::chrono::steady_clock::now();
  {
    const std::scoped_lock lock(mutex_);
    begun_ = true;
  }
  changed_.notify_all();
}

double Job::seconds_held() const { return seconds_since(began_); }

std::span<const int32_t> Job::pending() const {
  return reading_prompt() ? std::span(request_.prompt).subspan(read_) : std::span(&last_, 1);
}

void Job::advance(uint64_t n, std::span<const float> rows, uint64_t room) {
  const uint64_t vocab = engine_.info().vocab_size;
  if (wants_all_rows()) {
    GenerationPiece piece;
    for (uint64_t i = 0; i < n && read_ + i + 1 < request_.prompt.size(); ++i)
      piece.prompt_logprobs.push_back(logprob_of(request_.prompt[read_ + i + 1], rows.subspan(i * vocab, vocab)));
    put(std::move(piece));
  }
  if (read_on(n)) choose(rows.last(vocab), room);
}

bool Job::advance(uint64_t n, const Candidates& next, uint64_t room) {
  if (!read_on(n)) return true;
  if (!next.logits.empty()) {
    choose(next.logits, room);
    return true;
  }
  const std::optional<int32_t> token = sampler_.next(next);
  if (token) say(*token, {}, room);
  return token.has_value();
}

// So many tokens of the prompt have been run, if it has any left. Returns whether a token is to be chosen.
bool Job::read_on(uint64_t n) {
  if (!reading_prompt()) return true;
  read_ += n;
  if (reading_prompt()) return false;
  result_.prompt_seconds = seconds_since(phase_began_);
  phase_began_ = std::chrono::steady_clock::now();
  if (request_.options.max_tokens == 0) finish(FinishReason::kLength);
  return !ended_;
}

void Job::choose(std::span<const float> logits, uint64_t room) {
  std::span<const float> allowed = logits;
  if (matcher_) {
    masked_.assign(logits.begin(), logits.end());
    allowed = masked_;
    if (!matcher_->mask(masked_, ends_)) return finish(FinishReason::kStop);
  }
  say(sampler_.next(allowed), logits, room);
}

// `logits` are empty where nobody asks for logprobs.
void Job::say(int32_t token, std::span<const float> logits, uint64_t room) {
  if (std::find(ends_.begin(), ends_.end(), token) != ends_.end()) return finish(FinishReason::kStop);
  if (matcher_) matcher_->accept(token);
  last_ = token;
  result_.tokens.push_back(token);
  GenerationPiece piece;
  piece.tokens = {token};
  if (request_.logprobs) piece.logprobs.push_back(logprob_of(token, logits));
  piece.text = stops_.push(detokenizer_.push(token));
  result_.text += piece.text;
  put(std::move(piece));
  if (stops_.stopped()) return finish(FinishReason::kStop);
  if (result_.tokens.size() >= request_.options.max_tokens || room == 0) finish(FinishReason::kLength);
}

TokenLogprob Job::logprob_of(int32_t token, std::span<const float> logits) const {
  const float most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float x : logits) sum += std::exp(static_cast<double>(x - most));
  const double norm = static_cast<double>(most) + std::log(sum);
  const auto at = [&](int32_t id) { return static_cast<float>(logits[static_cast<size_t>(id)] - norm); };
  TokenLogprob result{token, at(token), {}};
  std::vector<int32_t> ids(logits.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  const auto n = static_cast<ptrdiff_t>(std::min<size_t>(request_.top_logprobs, ids.size()));
  std::partial_sort(ids.begin(), ids.begin() + n, ids.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (ptrdiff_t i = 0; i < n; ++i)
    result.top.emplace_back(ids[static_cast<size_t>(i)], at(ids[static_cast<size_t>(i)]));
  return result;
}

void Job::finish(FinishReason reason) {
  if (ended_) return;
  ended_ = true;
  result_.finish = reason;
  result_.generate_seconds = seconds_since(phase_began_);
  if (!stops_.stopped()) {
    GenerationPiece rest;
    rest.text = stops_.push(detokenizer_.finish());
    rest.text += stops_.finish();
    if (stops_.stopped()) result_.finish = FinishReason::kStop;
    result_.text += rest.text;
    if (!rest.text.empty()) put(std::move(rest));
  }
  {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
}

void Job::fail_with(std::exception_ptr error) {
  if (ended_) return;
  ended_ = true;
  {
    const std::scoped_lock lock(mutex_);
    error_ = std::move(error);
    closed_ = true;
  }
  changed_.notify_all();
}

}  // namespace upg
