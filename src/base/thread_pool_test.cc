#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <numeric>
#include <stdexcept>

namespace upg {
namespace {

TEST(ThreadPool, RunsOnEveryWorkerOnce) {
  ThreadPool pool(4);
  std::vector<int> calls(4, 0);
  for (int round = 0; round < 1000; ++round) pool.run([&](unsigned worker) { ++calls[worker]; });
  EXPECT_EQ(calls, std::vector<int>(4, 1000));
}

TEST(ThreadPool, SplitCoversTheRangeInWholeGrains) {
  for (unsigned threads : {1u, 2u, 3u, 7u}) {
    ThreadPool pool(threads);
    for (uint64_t n : {0u, 1u, 15u, 16u, 17u, 100u, 1000u}) {
      std::vector<int> seen(n, 0);
      pool.split(n, 16, [&](uint64_t begin, uint64_t end, unsigned) {
        EXPECT_EQ(begin % 16, 0u);
        for (uint64_t i = begin; i < end; ++i) ++seen[i];
      });
      EXPECT_EQ(std::accumulate(seen.begin(), seen.end(), 0), static_cast<int>(n));
      EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), static_cast<long>(n));
    }
  }
}

TEST(ThreadPool, ShareCoversTheRangeInWholeGrainsWhoeverIsSlow) {
  for (unsigned threads : {1u, 2u, 3u, 7u}) {
    ThreadPool pool(threads);
    for (uint64_t n : {0u, 1u, 15u, 16u, 17u, 100u, 1000u, 100000u}) {
      std::vector<std::atomic<int>> seen(n);
      pool.share(n, 16, [&](uint64_t begin, uint64_t end, unsigned worker) {
        EXPECT_EQ(begin % 16, 0u);
        EXPECT_TRUE(end % 16 == 0 || end == n);
        if (worker == 0) std::this_thread::yield();
        for (uint64_t i = begin; i < end; ++i) ++seen[i];
      });
      for (const auto& count : seen) ASSERT_EQ(count, 1);
    }
  }
}

TEST(ThreadPool, WhoIsDoneTakesWhatASlowOneHasLeft) {
  ThreadPool pool(2);
  std::atomic<uint64_t> done{0};
  // Worker 1 goes on only once all others' pieces are done, its own but one among them.
  std::atomic<bool> held{false};
  pool.share(1000, 1, [&](uint64_t begin, uint64_t end, unsigned worker) {
    if (worker == 1 && !held.exchange(true))
      while (done < 1000 - (end - begin)) std::this_thread::yield();
    done += end - begin;
  });
  EXPECT_EQ(done, 1000u);
}

TEST(ThreadPool, EachVisitsEveryItemOnce) {
  ThreadPool pool(3);
  std::vector<std::atomic<int>> seen(1000);
  pool.each(seen.size(), [&](uint64_t i, unsigned) { ++seen[i]; });
  for (auto& count : seen) EXPECT_EQ(count, 1);
}

TEST(ThreadPool, AnExceptionReachesTheCallerAndThePoolGoesOn) {
  ThreadPool pool(3);
  for (unsigned thrower = 0; thrower < 3; ++thrower)
    EXPECT_THROW(pool.run([&](unsigned worker) {
      if (worker == thrower) throw std::runtime_error("planned");
    }),
                 std::runtime_error);
  int calls = 0;
  pool.run([&](unsigned worker) {
    if (worker == 0) ++calls;
  });
  EXPECT_EQ(calls, 1);
}

TEST(ThreadPool, IdleWorkersUseNoProcessorTime) {
  ThreadPool pool(4);
  pool.run([](unsigned) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  auto cpu_seconds = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  };
  const double before = cpu_seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  // Three spinning workers would have used 0.6 s.
  EXPECT_LT(cpu_seconds() - before, 0.1);
}

}  // namespace
}  // namespace upg
