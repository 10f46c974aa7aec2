#include "upg/grammar.h"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "base/error.h"
#include "engine/engine_impl.h"
#include "engine/grammar_cache.h"
#include "grammar/bounded.h"
#include "grammar/source.h"

namespace upg {
namespace {

constexpr uint64_t kKeptBytes = 256 << 20;     // of compiled grammars, besides those in use
constexpr std::chrono::seconds kPatience{20};  // for others that are being compiled
constexpr int kTrialTokens = 64;               // that a new grammar is tried with
constexpr double kStepSeconds = 1;             // of this thread's work, that one mask may take

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

unsigned compiling_threads() {
#if defined(__SANITIZE_THREAD__)
  return 1;  // ThreadSanitizer allows none after a fork
#else
  return std::clamp(std::thread::hardware_concurrency(), 1U, 8U);
#endif
}

bool has(std::span<const int32_t> bits, uint64_t token) {
  return (static_cast<uint32_t>(bits[token / 32]) >> (token % 32) & 1) != 0;
}

// xgrammar takes surrogates for characters, UTF-8 does not: their first byte may come only with the second of another.
bool may_begin_surrogate(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size(); ++i)
    if (bytes[i] == '\xed' && (i + 1 == bytes.size() || static_cast<unsigned char>(bytes[i + 1]) >= 0xa0)) return true;
  return false;
}

// One grammar at a time, in the whole process: a fork must not find another thread inside xgrammar's compiler.
std::timed_mutex& compiling() {
  static std::timed_mutex mutex;
  return mutex;
}

// Some text that matches, token by token: what takes too long or too much is found here and not in the middle of an
// answer.
void walk(const grammar::Compiled& compiled, uint64_t vocab_size) {
  const auto matcher = compiled.matcher();
  std::vector<int32_t> bits((vocab_size + 31) / 32);
  uint64_t random = 1;
  for (int i = 0; i < kTrialTokens; ++i) {
    matcher->fill(bits);
    random = random * 6364136223846793005ULL + 1442695040888963407ULL;
    uint64_t token = (random >> 33) % vocab_size, tried = 0;
    while (tried < vocab_size && !has(bits, token)) token = (token + 1) % vocab_size, ++tried;
    if (tried == vocab_size) {
      if (i == 0 && !matcher->complete())
        fail(ErrorCode::kInvalidArgument, "no text of this model's tokens matches the grammar");
      return;
    }
    if (!matcher->accept(static_cast<int32_t>(token))) return;
  }
}

}  // namespace

GrammarCache::GrammarCache(const Tokenizer& tokenizer, uint64_t vocab_size, std::vector<int32_t> ends)
    : tokenizer_(tokenizer), vocab_size_(vocab_size), ends_(std::move(ends)) {}

const std::shared_ptr<const std::vector<int32_t>>& GrammarCache::other_at_first() {
  std::call_once(other_at_first_found_, [&] {
    std::vector<int32_t> others;
    for (uint64_t id = 0; id < vocab_size_; ++id) {
      const auto token = static_cast<int32_t>(id);
      if (tokenizer_.has_token(token) && tokenizer_.first_token_bytes(token) != tokenizer_.token_bytes(token))
        others.push_back(token);
    }
    other_at_first_ = std::make_shared<const std::vector<int32_t>>(std::move(others));
  });
  return other_at_first_;
}

const std::shared_ptr<const grammar::Vocabulary>& GrammarCache::vocabulary(bool control_characters) {
  auto& made = vocabularies_[control_characters ? 1 : 0];
  if (made) return made;
  std::vector<std::string> tokens(vocab_size_);
  for (uint64_t id = 0; id < vocab_size_; ++id) {
    const auto token = static_cast<int32_t>(id);
    if (tokenizer_.is_special(token) || std::find(ends_.begin(), ends_.end(), token) != ends_.end()) continue;
    std::string bytes(tokenizer_.token_bytes(token));
    if (may_begin_surrogate(bytes)) continue;
    const auto forbidden = [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\r'; };
    if (control_characters || std::none_of(bytes.begin(), bytes.end(), forbidden)) tokens[id] = std::move(bytes);
  }
  return made = grammar::Vocabulary::make(tokens);
}

std::shared_ptr<const grammar::Compiled> GrammarCache::lookup(const std::string& key) {
  const std::scoped_lock lock(mutex_);
  const auto at = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.key == key; });
  if (at == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, at);
  return at->compiled;
}

void GrammarCache::keep(const std::string& key, std::shared_ptr<const grammar::Compiled> compiled) {
  const std::scoped_lock lock(mutex_);
  entries_.push_front({key, std::move(compiled)});
  uint64_t bytes = 0;
  for (auto at = entries_.begin(); at != entries_.end();) {
    bytes += at->compiled->bytes() + at->key.size();
    at = bytes > kKeptBytes && at != entries_.begin() ? entries_.erase(at) : std::next(at);
  }
}

std::shared_ptr<const grammar::Compiled> GrammarCache::find(const GrammarSource& source, const GrammarLimits& limits) {
  const grammar::Tag tag = grammar::make_tag(source, limits.bytes, /*check_patterns=*/false);
  if (auto kept = lookup(tag.text)) return kept;
  const std::unique_lock lock(compiling(), kPatience);
  if (!lock) fail(ErrorCode::kBusy, "other grammars have been compiled for {} s", kPatience.count());
  if (auto kept = lookup(tag.text)) return kept;
  const auto& tokens = vocabulary(tag.control_characters);
  const unsigned threads = compiling_threads();
  grammar::try_bounded({limits.seconds, threads, limits.memory}, "the grammar", [&] {
    grammar::make_tag(source, limits.bytes, /*check_patterns=*/true);
    const auto compiled = grammar::compile(tokens, tag.text, threads);
    if (compiled->bytes() > limits.compiled_bytes)
      fail(ErrorCode::kInvalidArgument, "the grammar takes {} MiB when compiled, {} are the limit: make it smaller",
           compiled->bytes() >> 20, limits.compiled_bytes >> 20);
    walk(*compiled, vocab_size_);
  });
  auto compiled = grammar::compile(tokens, tag.text, threads);
  keep(tag.text, compiled);
  return compiled;
}

struct Grammar::Impl {
  uint64_t vocab_size;
  std::shared_ptr<const std::vector<int32_t>> other_at_first;
  std::shared_ptr<const grammar::Compiled> compiled;
};

Grammar::Grammar(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Grammar::~Grammar() = default;

std::shared_ptr<const Grammar> Grammar::compile(const Engine& engine, const GrammarSource& source,
                                                const GrammarLimits& limits) {
  if (grammar::missing() != nullptr) fail(ErrorCode::kUnsupported, "{}", grammar::missing());
  engine.impl().require_tokenizer();
  GrammarCache& cache = *engine.impl().grammars;
  auto compiled = cache.find(source, limits);
  std::unique_ptr<Impl> impl(new Impl{engine.info().vocab_size, cache.other_at_first(), std::move(compiled)});
  return std::shared_ptr<const Grammar>(new Grammar(std::move(impl)));
}

uint64_t Grammar::bytes() const { return impl_->compiled->bytes(); }

std::string_view grammars_missing() { return grammar::missing() == nullptr ? "" : grammar::missing(); }

struct GrammarMatcher::Impl {
  std::shared_ptr<const Grammar> grammar;
  std::unique_ptr<grammar::Matcher> matcher;
  std::vector<int32_t> bits;
  bool first = true;
};

GrammarMatcher::GrammarMatcher(std::shared_ptr<const Grammar> grammar) : impl_(std::make_unique<Impl>()) {
  impl_->matcher = grammar->impl().compiled->matcher();
  impl_->grammar = std::move(grammar);
}
GrammarMatcher::~GrammarMatcher() = default;
GrammarMatcher::GrammarMatcher(GrammarMatcher&&) noexcept = default;

bool GrammarMatcher::mask(std::span<float> logits, std::span<const int32_t> ends) {
  const Grammar::Impl& grammar = impl_->grammar->impl();
  if (logits.size() != grammar.vocab_size)
    fail(ErrorCode::kInvalidArgument, "{} logits are not those of a grammar for {} tokens", logits.size(),
         grammar.vocab_size);
  std::vector<int32_t>& bits = impl_->bits;
  bits.resize((logits.size() + 31) / 32);
  const double start = thread_seconds();
  impl_->matcher->fill(bits);
  if (thread_seconds() - start > kStepSeconds)
    fail(ErrorCode::kInvalidArgument, "the grammar is too ambiguous: what may come next takes over {:g} s to find",
         kStepSeconds);
  const auto clear = [&](int32_t token) {
    bits[static_cast<size_t>(token) / 32] &= static_cast<int32_t>(~(uint32_t{1} << (token % 32)));
  };
  if (impl_->first)
    for (int32_t token : *grammar.other_at_first) clear(token);
  for (int32_t token : ends) clear(token);
  bool any = false;
  const bool may_end = impl_->matcher->complete();
  std::vector<float> kept;
  for (int32_t token : ends) kept.push_back(logits[static_cast<size_t>(token)]);
  for (uint64_t token = 0; token < logits.size(); ++token) {
    if (has(bits, token))
      any = true;
    else
      logits[token] = -INFINITY;
  }
  if (may_end)
    for (size_t i = 0; i < ends.size(); ++i) logits[static_cast<size_t>(ends[i])] = kept[i];
  if (!any && !may_end)
    fail(ErrorCode::kInvalidArgument, "the grammar has come to where none of this model's tokens can follow");
  return any || (may_end && !ends.empty());
}

void GrammarMatcher::accept(int32_t token) {
  impl_->first = false;
  if (!impl_->matcher->accept(token)) fail(ErrorCode::kInvalidArgument, "token {} may not come next", token);
}

bool GrammarMatcher::complete() const { return impl_->matcher->complete(); }

}  // namespace upg
