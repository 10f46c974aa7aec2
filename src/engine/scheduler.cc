#include "upg/scheduler.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <future>
#include <map>
#include <set>
#include <thread>

#include "base/error.h"
#include "engine/admission.h"
#include "engine/scheduler_job.h"

namespace upg {
namespace {

constexpr double kStepSeconds = 0.2;         // that reading prompts may hold up those who generate
constexpr uint64_t kLeastPiece = 16;         // of a prompt in a step
constexpr uint64_t kPieceWithLogprobs = 64;  // whose logits are all kept
constexpr uint64_t kCopyAtLeast = 32;        // positions: fewer are read as quickly

// A timeline and what it holds; kept after a request for those that begin like it.
struct Slot {
  std::unique_ptr<Timeline> timeline;
  std::vector<int32_t> held;
  std::shared_ptr<Job> job;
  uint64_t used = 0;  // when, in requests
  Candidates next;    // of the last pass
};

uint64_t common_prefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  return static_cast<uint64_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

struct Embedding {
  std::vector<int32_t> tokens;
  std::promise<std::vector<float>> result;
};

class Handle final : public Generation {
 public:
  explicit Handle(std::shared_ptr<Job> job) : job_(std::move(job)) {}
  ~Handle() override { job_->cancel(); }
  std::optional<GenerationPiece> next(std::chrono::milliseconds timeout) override { return job_->next(timeout); }
  bool wait_begun(std::chrono::milliseconds timeout) override { return job_->wait_begun(timeout); }
  void cancel() override { job_->cancel(); }
  const GenerateResult& result() const override { return job_->result(); }
  uint64_t cached_tokens() const override { return job_->cached_tokens(); }

 private:
  std::shared_ptr<Job> job_;
};

}  // namespace

struct Scheduler::Impl {
  using Clock = Admission::Clock;

  Impl(std::shared_ptr<Engine> e, const SchedulerOptions& o)
      : engine(std::move(e)), options(o), admission(o.parallel, o.queue, o.queue_time), slots(o.parallel) {
    if (o.parallel == 0) fail(ErrorCode::kInvalidArgument, "parallel is 0: at least one request must run");
    // Requests have the same text alone and together.
    engine->impl().context.one_as_many = true;
    for (Slot& slot : slots) slot.timeline = make_timeline(*engine, options.session);
    context = slots[0].timeline->capacity();
    thread = std::thread([this] { run(); });
  }

  ~Impl() {
    {
      const std::scoped_lock lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    thread.join();
    engine->impl().context.one_as_many = false;
  }

  // --- Callers' threads

  void check_prompt(std::span<const int32_t> tokens) const {
    if (tokens.empty()) fail(ErrorCode::kInvalidArgument, "the prompt is empty");
    if (tokens.size() > context)
      fail(ErrorCode::kInvalidArgument, "the prompt has {} tokens and the context holds {}", tokens.size(), context);
    for (int32_t token : tokens)
      if (token < 0 || static_cast<uint64_t>(token) >= engine->info().vocab_size)
        fail(ErrorCode::kInvalidArgument, "token id {} is outside the vocabulary of {}", token,
             engine->info().vocab_size);
  }

  // `more`: a refusal is no sign of overload.
  void enqueue(uint64_t prompt_tokens, bool more, const std::function<void(Clock::time_point deadline)>& add) {
    {
      const std::scoped_lock lock(mutex);
      if (draining || stopping) {
        ++statistics.refused;
        fail(ErrorCode::kBusy, "no more requests are taken: the end is near");
      }
      const Clock::time_point now = Clock::now();
      check_room(prompt_tokens, more, now);
      ++statistics.waiting;
      ++statistics.requests;
      unread += prompt_tokens;
      add(admission.deadline(now));
    }
    changed.notify_all();
  }

  void check_room(uint64_t prompt_tokens, bool more, Clock::time_point now) {
    const auto refusal = admission.check(load(), prompt_tokens, now);
    if (!refusal) return;
    if (!more) {
      ++statistics.refused;
      admission.refused(now);
    }
    throw busy(*refusal);
  }

  static BusyError busy(const Admission::Refusal& refusal) {
    return {fmt::format("{}; try again in {} s", refusal.reason, refusal.retry_after.count()), refusal.retry_after};
  }
  Admission::Load load() const { return {running(), statistics.waiting, unread}; }

  // --- The scheduler's thread

  void run() {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [&] { return stopping || !waiting.empty() || !embeddings.empty() || running() > 0; });
      if (stopping) break;
      admit();
      std::deque<Embedding> to_embed = std::move(embeddings);
      embeddings.clear();
      lock.unlock();
      for (Embedding& e : to_embed) embed(e);
      step();
      lock.lock();
      statistics.waiting -= to_embed.size();
      release();
      unread = 0;
      for (const auto& [client, jobs] : waiting)
        for (const auto& job : jobs) unread += job->unread();
      for (const Slot& slot : slots) unread += slot.job ? slot.job->unread() : 0;
      for (const Embedding& e : embeddings) unread += e.tokens.size();
      if (idle()) changed.notify_all();  // for drain()
    }
    for (Slot& slot : slots)
      if (slot.job) slot.job->finish(FinishReason::kCancelled);
    for (auto& [client, jobs] : waiting)
      for (auto& job : jobs) job->finish(FinishReason::kCancelled);
    for (Embedding& e : embeddings)
      e.result.set_exception(std::make_exception_ptr(Error(ErrorCode::kCancelled, "cancelled")));
  }

  uint64_t running() const {
    return static_cast<uint64_t>(std::count_if(slots.begin(), slots.end(), [](const Slot& s) { return s.job; }));
  }
  bool idle() const { return running() == 0 && statistics.waiting == 0; }

  // The next of the waiting: clients take turns. nullptr: there is none.
  std::shared_ptr<Job> take_waiting() {
    if (waiting.empty()) return nullptr;
    auto turn = waiting.upper_bound(last_client);
    if (turn == waiting.end()) turn = waiting.begin();
    last_client = turn->first;
    std::shared_ptr<Job> job = std::move(turn->second.front());
    turn->second.pop_front();
    if (turn->second.empty()) waiting.erase(turn);
    --statistics.waiting;
    return job;
  }

  // Takes those of the waiting out that `ended` ends.
  template <typename Ended>
  void drop_waiting(Ended&& ended) {
    for (auto client = waiting.begin(); client != waiting.end();) {
      statistics.waiting -= std::erase_if(client->second, [&](const std::shared_ptr<Job>& job) { return ended(*job); });
      client = client->second.empty() ? waiting.erase(client) : std::next(client);
    }
  }

  void admit() {
    drop_waiting([&](Job& job) {
      if (!job.cancelled()) return false;
      job.finish(FinishReason::kCancelled);
      ++statistics.cancelled;
      return true;
    });
    while (running() < slots.size()) {
      std::shared_ptr<Job> job = take_waiting();
      if (!job) break;
      Slot& slot = choose_slot(*job);
      job->begin(slot.held.size());
      statistics.cached_tokens += slot.held.size();
      slot.job = std::move(job);
      slot.used = ++clock;
    }
    const Clock::time_point now = Clock::now();
    const Admission::Load there = load();
    drop_waiting([&](Job& job) {
      if (job.deadline > now) return false;
      job.fail_with(std::make_exception_ptr(busy(admission.expired(there))));
      admission.refused(now);
      ++statistics.refused;
      return true;
    });
  }

  // A free slot that holds as much of the prompt as there is to be had, and nothing else. The prompt's last token is
  // read in any case: what comes after it is wanted.
  Slot& choose_slot(const Job& job) {
    const std::vector<int32_t>& prompt = job.request().prompt;
    Slot *source = nullptr, *oldest = nullptr;
    uint64_t most = 0;
    for (Slot& slot : slots) {
      const uint64_t n =
          job.request().prompt_logprobs ? 0 : std::min<uint64_t>(common_prefix(slot.held, prompt), prompt.size() - 1);
      if (n > most || (n == most && source && source->job && !slot.job)) {
        most = n;
        source = &slot;
      }
      if (!slot.job && (!oldest || slot.used < oldest->used)) oldest = &slot;
    }
    if (source && !source->job && (2 * most >= source->held.size() || source == oldest)) {
      source->held.resize(source->timeline->set_length(most));
      return *source;
    }
    // Another's beginning, which it keeps.
    oldest->held.clear();
    if (source && most >= kCopyAtLeast && oldest->timeline->copy_from(*source->timeline, most)) {
      oldest->held.assign(prompt.begin(), prompt.begin() + static_cast<ptrdiff_t>(most));
    } else {
      oldest->timeline->set_length(0);
    }
    return *oldest;
  }

  // Tokens of prompts that this step may read.
  uint64_t prompt_budget() const {
    const uint64_t chunk = slots[0].timeline->chunk();
    const bool generating =
        std::any_of(slots.begin(), slots.end(), [](const Slot& s) { return s.job && !s.job->reading_prompt(); });
    if (!generating || seconds_a_token == 0) return chunk;
    return std::clamp(static_cast<uint64_t>(kStepSeconds / seconds_a_token), std::min(kLeastPiece, chunk), chunk);
  }

  // One pass: a token of each that generates, and a piece of the prompts, the oldest request's first.
  void step() {
    std::vector<Slot*> active;
    for (Slot& slot : slots) {
      if (slot.job && slot.job->cancelled()) slot.job->finish(FinishReason::kCancelled);
      if (slot.job && !slot.job->ended()) active.push_back(&slot);
    }
    if (active.empty()) return;
    std::sort(active.begin(), active.end(), [](const Slot* a, const Slot* b) { return a->used < b->used; });
    const uint64_t vocab = engine->info().vocab_size;
    uint64_t budget = prompt_budget(), prompt_tokens = 0, rows = 0;
    std::vector<Work> work;
    std::vector<Slot*> of_work;
    for (Slot* slot : active) {
      std::span<const int32_t> tokens = slot->job->pending();
      uint64_t n = 1;
      if (slot->job->reading_prompt()) {
        n = std::min<uint64_t>(tokens.size(), budget);
        if (slot->job->wants_all_rows()) n = std::min(n, kPieceWithLogprobs);
        if (n == 0) continue;
        budget -= n;
        prompt_tokens += n;
      }
      Work w = {.timeline = slot->timeline.get(), .tokens = tokens.first(n)};
      if (slot->job->wants_all_rows()) {
        w.range = {0, n};
      } else if (n == tokens.size() && slot->job->wants_logits()) {
        w.range = {n - 1, n};
      } else if (n == tokens.size()) {
        w.request = slot->job->choice();
        w.candidates = &slot->next;
      }
      rows += w.range.end - w.range.begin;
      work.push_back(w);
      of_work.push_back(slot);
    }
    logits.resize(rows * vocab);
    float* at = logits.data();
    for (Work& w : work) {
      w.logits = at;
      at += (w.range.end - w.range.begin) * vocab;
    }
    const auto start = Clock::now();
    try {
      engine->impl().device->forward(work);
    } catch (...) {  // out of memory for a window, a device that failed: who was in the pass cannot go on
      for (Slot* slot : of_work) {
        slot->job->fail_with(std::current_exception());
        slot->held.resize(slot->timeline->set_length(0));
      }
      return;
    }
    if (prompt_tokens > 0) {
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      seconds_a_token = seconds / static_cast<double>(prompt_tokens);
    }
    std::atomic<uint64_t> generated = 0;
    ThreadPool& pool = engine->impl().context.pool;
    const auto go_on = [&](Slot& slot, auto f) {
      const size_t before = slot.job->result().tokens.size();
      try {
        f();
      } catch (...) {  // a grammar that takes too long
        slot.job->fail_with(std::current_exception());
      }
      generated += slot.job->result().tokens.size() - before;
    };
    std::vector<uint8_t> undecided(work.size(), 0);
    const auto advance = [&](uint64_t i) {
      Slot& slot = *of_work[i];
      const Work& w = work[i];
      slot.held.insert(slot.held.end(), w.tokens.begin(), w.tokens.end());
      const uint64_t n = w.tokens.size(), room = context - slot.held.size();
      go_on(slot, [&] {
        if (w.candidates) {
          undecided[i] = !slot.job->advance(n, *w.candidates, room);
        } else {
          slot.job->advance(n, {w.logits, (w.range.end - w.range.begin) * vocab}, room);
        }
      });
    };
    // Going through a vocabulary takes as long as a layer: each request's on one of the threads. Waking these takes
    // longer than to go through a few candidates.
    std::vector<uint64_t> with_vocabulary;
    for (uint64_t i = 0; i < work.size(); ++i) {
      if (work[i].candidates && work[i].candidates->logits.empty()) {
        advance(i);
      } else {
        with_vocabulary.push_back(i);
      }
    }
    pool.each(with_vocabulary.size(), [&](uint64_t i, unsigned) { advance(with_vocabulary[i]); });
    std::vector<Slot*> others;
    for (uint64_t i = 0; i < work.size(); ++i) {
      Slot& slot = *of_work[i];
      if (!undecided[i]) continue;
      go_on(slot, [&] {
        slot.timeline->fetch_logits(slot.next);
        others.push_back(&slot);
      });
    }
    pool.each(others.size(), [&](uint64_t i, unsigned) {
      Slot& slot = *others[i];
      go_on(slot, [&] { slot.job->choose(slot.next.logits, context - slot.held.size()); });
    });
    const std::scoped_lock lock(mutex);
    ++statistics.steps;
    statistics.prompt_tokens += prompt_tokens;
    statistics.generated_tokens += generated;
    statistics.positions_used = 0;
    for (const Slot& slot : slots) statistics.positions_used += slot.held.size();
  }

  // Slots of requests that ended are free.
  void release() {
    const bool ran = running() > 0;
    for (Slot& slot : slots) {
      if (!slot.job || !slot.job->ended()) continue;
      if (slot.job->result().finish == FinishReason::kCancelled) ++statistics.cancelled;
      admission.left(Admission::Seconds(slot.job->seconds_held()));
      slot.job.reset();
      slot.used = ++clock;
    }
    if (!ran || running() > 0) return;
    std::set<const void*> kept;
    for (const Slot& slot : slots) slot.timeline->list_blocks(kept);
    statistics.blocks_kept = kept.size();
  }

  void embed(Embedding& e) {
    try {
      if (!embedder) embedder = make_timeline(*engine, options.session);
      e.result.set_value(embedder->mean_hidden(e.tokens));
    } catch (...) {
      e.result.set_exception(std::current_exception());
    }
  }

  std::shared_ptr<Engine> engine;
  SchedulerOptions options;
  Admission admission;
  uint64_t context = 0;
  std::vector<Slot> slots;
  std::unique_ptr<Timeline> embedder;  // made when it is asked for
  std::vector<float> logits;
  double seconds_a_token = 0;  // of a prompt, lately
  uint64_t clock = 0;

  mutable std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, std::deque<std::shared_ptr<Job>>> waiting;  // by client
  std::string last_client;
  std::deque<Embedding> embeddings;
  uint64_t unread = 0;             // tokens of the prompts of all these
  SchedulerStatistics statistics;  // `running` and `positions` are filled in when asked for
  bool draining = false, stopping = false;
  std::thread thread;
};

Scheduler::Scheduler(std::shared_ptr<Engine> engine, const SchedulerOptions& options)
    : impl_(std::make_unique<Impl>(std::move(engine), options)) {}
Scheduler::~Scheduler() = default;

uint64_t Scheduler::context() const { return impl_->context; }
const Engine& Scheduler::engine() const { return *impl_->engine; }

void Scheduler::check_room(uint64_t prompt_tokens) {
  const std::scoped_lock lock(impl_->mutex);
  impl_->check_room(prompt_tokens, /*more=*/false, Admission::Clock::now());
}

std::shared_ptr<Generation> Scheduler::submit(GenerationRequest request) {
  impl_->check_prompt(request.prompt);
  auto job = std::make_shared<Job>(*impl_->engine, std::move(request));
  const GenerationRequest& taken = job->request();
  impl_->enqueue(taken.prompt.size(), taken.more, [&](Admission::Clock::time_point deadline) {
    job->deadline = deadline;
    impl_->waiting[taken.client].push_back(job);
  });
  return std::make_shared<Handle>(std::move(job));
}

std::vector<float> Scheduler::embed(std::span<const int32_t> tokens) {
  impl_->check_prompt(tokens);
  std::future<std::vector<float>> result;
  impl_->enqueue(tokens.size(), /*more=*/false, [&](Admission::Clock::time_point) {
    Embedding& e = impl_->embeddings.emplace_back();
    e.tokens.assign(tokens.begin(), tokens.end());
    result = e.result.get_future();
  });
  return result.get();
}

SchedulerStatistics Scheduler::statistics() const {
  const std::scoped_lock lock(impl_->mutex);
  SchedulerStatistics s = impl_->statistics;
  s.running = impl_->running();
  s.blocks_held = impl_->engine->impl().device->blocks_held();
  s.overloaded = impl_->admission.overloaded(Admission::Clock::now());
  s.positions = impl_->slots.size() * impl_->context;
  return s;
}

bool Scheduler::drain(std::chrono::milliseconds timeout) {
  std::unique_lock lock(impl_->mutex);
  impl_->draining = true;
  return impl_->changed.wait_for(lock, timeout, [&] { return impl_->idle(); });
}

}  // namespace upg
