#include "base/thread_pool.h"

#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/processors.h"

namespace upg {
namespace {

constexpr unsigned kMaxThreads = 1024;  // more would only take from other programs before the system refuses
constexpr int kSpins = 2000;            // about 10 microseconds: longer than the gap between two steps of a token

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `value` differs from `old`, spinning briefly before sleeping.
uint32_t wait_for_change(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    const uint32_t seen = value.load(std::memory_order_acquire);
    if (seen != old) return seen;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(unsigned threads) {
  if (threads == 0) threads = count_cores(usable_processors());
  if (threads > kMaxThreads)
    fail(ErrorCode::kInvalidArgument, "{} threads are asked for, {} are the most", threads, kMaxThreads);
  left_ = std::vector<Left>(threads);
  try {
    for (unsigned worker = 1; worker < threads; ++worker) threads_.emplace_back([this, worker] { serve(worker); });
  } catch (const std::system_error& error) {
    const size_t started = threads_.size() + 1;
    stop();
    fail(ErrorCode::kInvalidArgument, "cannot start {} threads, the system gives {}: {}; ask for fewer", threads,
         started, error.what());
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stop_ = true;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run(const std::function<void(unsigned)>& work) {
  work_ = &work;
  busy_.store(static_cast<uint32_t>(threads_.size()), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  call(0);
  for (uint32_t left; (left = busy_.load(std::memory_order_acquire)) != 0;) wait_for_change(busy_, left);
  if (failed_.exchange(false)) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::serve(unsigned worker) {
  for (uint32_t seen = 0;;) {
    seen = wait_for_change(round_, seen);
    if (stop_) return;
    call(worker);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
  }
}

void ThreadPool::call(unsigned worker) {
  try {
    (*work_)(worker);
  } catch (...) {
    if (!failed_.exchange(true)) failure_ = std::current_exception();
  }
}

}  // namespace upg
