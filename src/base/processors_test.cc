#include "base/processors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace upg {
namespace {

// A folder that looks like the root of a system.
class FakeSystem {
 public:
  FakeSystem() : root_(std::filesystem::path(::testing::TempDir()) / fmt::format("processors-{}", ::getpid())) {
    std::filesystem::remove_all(root_);
  }
  ~FakeSystem() { std::filesystem::remove_all(root_); }
  void put(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text << "\n";
  }
  void processor(unsigned i, const std::string& siblings) const {
    put(fmt::format("sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", i), siblings);
  }
  std::string root() const { return root_.string(); }

 private:
  std::filesystem::path root_;
};

TEST(Processors, ThreadsOfOneCoreCountOnce) {
  const FakeSystem system;
  for (unsigned i : {0u, 1u, 2u, 3u}) system.processor(i, fmt::format("{},{}", i % 2, i % 2 + 2));
  EXPECT_EQ(count_cores({0, 1, 2, 3}, system.root()), 2u);
  EXPECT_EQ(count_cores({1, 3}, system.root()), 1u);
  EXPECT_EQ(count_cores({2, 3}, system.root()), 2u) << "only one thread of each may be used";
}

TEST(Processors, WithoutTopologyEachIsACore) {
  const FakeSystem system;
  EXPECT_EQ(count_cores({0, 1, 5}, system.root()), 3u);
}

TEST(Processors, AQuotaLimitsThem) {
  const FakeSystem system;
  system.put("sys/fs/cgroup/cpu.max", "max 100000");
  EXPECT_EQ(count_cores({0, 1, 2, 3}, system.root()), 4u);
  system.put("sys/fs/cgroup/cpu.max", "150000 100000");
  EXPECT_EQ(count_cores({0, 1, 2, 3}, system.root()), 2u);
  system.put("sys/fs/cgroup/cpu.max", "1000 100000");
  EXPECT_EQ(count_cores({0, 1, 2, 3}, system.root()), 1u);
}

TEST(Processors, ThereIsAlwaysOne) {
  EXPECT_GE(count_cores({}), 1u);
  EXPECT_GE(count_cores(usable_processors()), 1u);
}

}  // namespace
}  // namespace upg
