#include <algorithm>
#include <chrono>
#include <optional>

#include "base/error.h"
#include "engine/engine_impl.h"
#include "engine/stop_filter.h"
#include "text/detokenizer.h"
#include "text/sampler.h"
#include "upg/grammar.h"

namespace upg {
namespace {

constexpr uint64_t kFirstPiece = 128;       // tokens of a prompt before the first report of progress
constexpr uint64_t kDefaultContext = 4096;  // unless asked: a cache for the full context of a large model is gigabytes

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

uint64_t choose_context(const Engine& engine, const SessionOptions& options) {
  const uint64_t limit = engine.info().max_context;
  if (options.context > limit)
    fail(ErrorCode::kInvalidArgument, "a context of {} is more than the {} positions this model was made for",
         options.context, limit);
  return options.context ? options.context : std::min(limit, kDefaultContext);
}

}  // namespace

std::unique_ptr<Timeline> make_timeline(const Engine& engine, const SessionOptions& options) {
  return engine.impl().device->timeline(choose_context(engine, options), find_kv_type(options.kv),
                                        options.float_activations ? Activations::kFloat : Activations::kQuantized);
}

struct Session::Impl {
  Impl(std::shared_ptr<Engine> e, const SessionOptions& options)
      : engine(std::move(e)), timeline(make_timeline(*engine, options)) {}

  void check(std::span<const int32_t> tokens) const {
    if (tokens.empty()) fail(ErrorCode::kInvalidArgument, "no tokens to process: the prompt is empty");
    if (tokens.size() > timeline->capacity() - timeline->length())
      fail(ErrorCode::kInvalidArgument, "{} tokens do not fit: the context holds {} and {} are in use", tokens.size(),
           timeline->capacity(), timeline->length());
    for (int32_t token : tokens)
      if (token < 0 || static_cast<uint64_t>(token) >= engine->info().vocab_size)
        fail(ErrorCode::kInvalidArgument, "token id {} is outside the vocabulary of {}", token,
             engine->info().vocab_size);
  }

  void forward(std::span<const int32_t> tokens, LogitsRange range) {
    next.logits.resize((range.end - range.begin) * engine->info().vocab_size);
    timeline->forward(tokens, range, next.logits.data());
    held.insert(held.end(), tokens.begin(), tokens.end());
  }

  // Feeds tokens in pieces that take about a second. Throws Error(kCancelled).
  void feed(std::span<const int32_t> tokens, const Progress& progress) {
    check(tokens);
    uint64_t piece = progress ? std::min(kFirstPiece, timeline->chunk()) : timeline->chunk();
    for (uint64_t at = 0; at < tokens.size();) {
      const auto start = std::chrono::steady_clock::now();
      const uint64_t n = std::min<uint64_t>(piece, tokens.size() - at);
      const bool last = at + n == tokens.size();
      forward(tokens.subspan(at, n), last ? LogitsRange{n - 1, n} : LogitsRange{});
      at += n;
      if (!progress) continue;
      if (!progress("prompt", at, tokens.size())) fail(ErrorCode::kCancelled, "cancelled while the prompt was read");
      const double pieces = 1 / std::max(seconds_since(start), 1e-3);  // in a second
      piece = std::clamp(static_cast<uint64_t>(static_cast<double>(n) * pieces),
                         std::min(kFirstPiece, timeline->chunk()), timeline->chunk());
    }
  }

  // The token after the last pass.
  int32_t choose(Sampler& sampler) {
    if (next.logits.empty()) {
      if (const std::optional<int32_t> token = sampler.next(next)) return *token;
      timeline->fetch_logits(next);
    }
    return sampler.next(next.logits);
  }

  std::shared_ptr<Engine> engine;
  std::unique_ptr<Timeline> timeline;
  Candidates next;            // logits of the last pass, or what there is in their place
  std::vector<int32_t> held;  // the timeline's tokens
};

Session::Session(std::shared_ptr<Engine> engine, const SessionOptions& options)
    : impl_(std::make_unique<Impl>(std::move(engine), options)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;

uint64_t Session::context() const { return impl_->timeline->capacity(); }
uint64_t Session::length() const { return impl_->timeline->length(); }
std::span<const int32_t> Session::tokens() const { return impl_->held; }

uint64_t Session::rewind(uint64_t length) {
  if (length > impl_->timeline->length())
    fail(ErrorCode::kInvalidArgument, "cannot rewind to position {}: the session holds {}", length,
         impl_->timeline->length());
  impl_->held.resize(impl_->timeline->set_length(length));
  return impl_->held.size();
}

std::span<const float> Session::feed(std::span<const int32_t> tokens) {
  impl_->feed(tokens, {});
  return impl_->next.logits;
}

void Session::feed_all(std::span<const int32_t> tokens, uint64_t first,
                       const std::function<void(uint64_t, std::span<const float>)>& row) {
  impl_->check(tokens);
  const uint64_t vocab = impl_->engine->info().vocab_size;
  const uint64_t chunk = std::min<uint64_t>(impl_->timeline->chunk(), 512);  // of which the caller gets logits
  for (uint64_t at = 0; at < tokens.size(); at += chunk) {
    const uint64_t n = std::min<uint64_t>(chunk, tokens.size() - at);
    const uint64_t begin = std::clamp(first, at, at + n) - at;
    impl_->forward(tokens.subspan(at, n), {begin, n});
    for (uint64_t i = begin; i < n; ++i)
      row(at + i, std::span<const float>(impl_->next.logits).subspan((i - begin) * vocab, vocab));
  }
}

GenerateResult Session::generate(std::span<const int32_t> prompt, const GenerateOptions& options,
                                 const std::function<bool(std::string_view)>& emit) {
  const Engine& engine = *impl_->engine;
  Sampler sampler(options.sampling, engine.info().vocab_size);
  StreamDetokenizer detokenizer(engine.impl().require_tokenizer());
  StopFilter stops(options.stop);
  GenerateResult result;
  result.prompt_tokens = prompt.size();

  auto start = std::chrono::steady_clock::now();
  impl_->feed(prompt, options.progress);
  result.prompt_seconds = seconds_since(start);
  for (int32_t token : impl_->held) sampler.saw(token);

  start = std::chrono::steady_clock::now();
  auto deliver = [&](std::string text) {  // false: stop
    result.text += text;
    if (!text.empty() && emit && !emit(text)) {
      result.finish = FinishReason::kCancelled;
      return false;
    }
    if (stops.stopped()) result.finish = FinishReason::kStop;
    return !stops.stopped();
  };
  std::vector<int32_t> ends = engine.end_tokens();
  ends.insert(ends.end(), options.end_tokens.begin(), options.end_tokens.end());
  bool running = true;
  std::optional<GrammarMatcher> matcher;
  std::vector<float> masked;  // logits under the grammar
  if (options.grammar) matcher.emplace(options.grammar);
  if (options.ignore_eos) ends.clear();
  while (running && result.tokens.size() < options.max_tokens) {
    if (matcher) {
      masked = impl_->next.logits;
      if (!matcher->mask(masked, ends)) {
        result.finish = FinishReason::kStop;
        break;
      }
    }
    const int32_t token = matcher ? sampler.next(masked) : impl_->choose(sampler);
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) {
      result.finish = FinishReason::kStop;
      break;
    }
    if (matcher) matcher->accept(token);
    result.tokens.push_back(token);
    running = deliver(stops.push(detokenizer.push(token)));
    if (!running || result.tokens.size() == options.max_tokens || length() == context()) break;
    if (matcher) {
      feed(std::span(&token, 1));
    } else {
      impl_->timeline->forward_candidates(std::span(&token, 1), sampler.request(), impl_->next);
      impl_->held.push_back(token);
    }
  }
  if (running) {
    std::string rest = stops.push(detokenizer.finish());
    rest += stops.finish();
    deliver(std::move(rest));
  }
  result.generate_seconds = seconds_since(start);
  return result;
}

}  // namespace upg
