// A fixed set of threads that run the same function side by side. Idle workers sleep; between two calls in quick
// succession they spin for a few microseconds first, which is what makes many small parallel steps a token cheap.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

namespace upg {

class ThreadPool {
 public:
  /// `threads` counts the caller, who takes part as worker 0. 0: one for each core the process may use.
  /// Throws Error(kInvalidArgument) for more than 1,024, or more than the system gives.
  explicit ThreadPool(unsigned threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  unsigned size() const { return static_cast<unsigned>(threads_.size()) + 1; }

  /// Calls work(worker) once on every worker and waits. The first exception thrown is rethrown here. Not reentrant, and
  /// for one caller at a time.
  void run(const std::function<void(unsigned worker)>& work);

  /// Splits [0, n) into one contiguous range of whole grains a worker: the same split for the same n, so that a worker
  /// meets the same memory again.
  template <typename Range>
  void split(uint64_t n, uint64_t grain, Range&& range) {
    const uint64_t grains = n / grain + (n % grain != 0);
    const uint64_t workers = std::min<uint64_t>(size(), grains);
    if (workers <= 1) {
      if (n > 0) range(uint64_t{0}, n, 0u);
      return;
    }
    run([&](unsigned worker) {
      if (worker >= workers) return;
      const uint64_t begin = grains * worker / workers * grain;
      const uint64_t end = std::min(grains * (worker + 1) / workers * grain, n);
      if (begin < end) range(begin, end, worker);
    });
  }

  /// The same ranges, in pieces: whoever is done takes the last of what the one has left who has most. Where other
  /// programs use the processors too, one worker may be half as fast as another for a while.
  template <typename Range>
  void share(uint64_t n, uint64_t grain, Range&& range) {
    const uint64_t grains = n / grain + (n % grain != 0);
    const uint64_t workers = std::min<uint64_t>(size(), grains);
    if (workers <= 1 || grains > UINT32_MAX) return split(n, grain, range);
    for (uint64_t w = 0; w < workers; ++w) left_[w].set(grains * w / workers, grains * (w + 1) / workers);
    const auto piece = static_cast<uint32_t>(std::max<uint64_t>(1, grains / (workers * kPieces)));
    run([&](unsigned worker) {
      const auto work = [&](Left::Taken taken) { range(taken.begin * grain, std::min(taken.end * grain, n), worker); };
      Left::Taken taken;
      while (worker < workers && left_[worker].take_first(piece, &taken)) work(taken);
      for (;;) {
        const auto most = std::max_element(left_.begin(), left_.begin() + static_cast<ptrdiff_t>(workers),
                                           [](const Left& a, const Left& b) { return a.count() < b.count(); });
        if (most->count() == 0) return;
        if (most->take_last(piece, &taken)) work(taken);
      }
    });
  }

  /// Calls item(i, worker) for every i in [0, n), in no particular order: for items of unequal cost.
  template <typename Item>
  void each(uint64_t n, Item&& item) {
    if (size() == 1 || n <= 1) {
      for (uint64_t i = 0; i < n; ++i) item(i, 0u);
      return;
    }
    std::atomic<uint64_t> next{0};
    run([&](unsigned worker) {
      try {
        for (uint64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;) item(i, worker);
      } catch (...) {
        next.store(n, std::memory_order_relaxed);  // the others need not finish what nobody will use
        throw;
      }
    });
  }

 private:
  static constexpr uint64_t kPieces = 32;  // of a worker's range, in share()

  // Grains that nobody has begun: the first and the end in one word, which its owner and others take from.
  class alignas(64) Left {
   public:
    struct Taken {
      uint64_t begin, end;
    };
    void set(uint64_t begin, uint64_t end) { word_.store(begin << 32 | end, std::memory_order_relaxed); }
    uint64_t count() const {
      const uint64_t word = word_.load(std::memory_order_relaxed);
      return (word & UINT32_MAX) - (word >> 32);
    }
    bool take_first(uint32_t most, Taken* taken) { return take(most, true, taken); }
    bool take_last(uint32_t most, Taken* taken) { return take(most, false, taken); }

   private:
    // Up to so many from the beginning or the end. False: there are none.
    bool take(uint32_t most, bool first, Taken* taken) {
      uint64_t word = word_.load(std::memory_order_relaxed);
      for (;;) {
        const uint64_t begin = word >> 32, end = word & UINT32_MAX, n = std::min<uint64_t>(most, end - begin);
        if (n == 0) return false;
        const uint64_t cut = first ? begin + n : end - n, rest = first ? cut << 32 | end : begin << 32 | cut;
        if (!word_.compare_exchange_weak(word, rest, std::memory_order_relaxed)) continue;
        *taken = first ? Taken{begin, cut} : Taken{cut, end};
        return true;
      }
    }
    std::atomic<uint64_t> word_{0};
  };

  void stop();
  void serve(unsigned worker);
  void call(unsigned worker);

  std::vector<std::thread> threads_;
  std::vector<Left> left_;                               // of each worker, in share()
  const std::function<void(unsigned)>* work_ = nullptr;  // written before round_ is raised, read after it is seen
  std::atomic<uint32_t> round_{0};
  std::atomic<uint32_t> busy_{0};
  std::atomic<bool> stop_{false};
  std::atomic<bool> failed_{false};
  std::exception_ptr failure_;
};

}  // namespace upg
