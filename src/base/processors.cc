#include "base/processors.h"

#include <fmt/format.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <thread>

namespace upg {

std::vector<unsigned> usable_processors() {
  std::vector<unsigned> processors;
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return processors;
  for (unsigned i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &set)) processors.push_back(i);
#endif
  return processors;
}

unsigned count_cores(const std::vector<unsigned>& processors, const std::string& root) {
  std::set<std::string> cores;  // each named by the list of its threads
  for (unsigned i : processors) {
    std::ifstream file(fmt::format("{}/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", root, i));
    std::string siblings;
    if (!std::getline(file, siblings)) siblings = fmt::format("only {}", i);
    cores.insert(siblings);
  }
  size_t count = cores.empty() ? std::thread::hardware_concurrency() : cores.size();
  std::ifstream limit(root + "/sys/fs/cgroup/cpu.max");  // "200000 100000", or "max 100000"
  double quota = 0, period = 0;
  if (limit >> quota >> period && quota > 0 && period > 0)
    count = std::min(count, static_cast<size_t>(std::ceil(quota / period)));
  return static_cast<unsigned>(std::clamp<size_t>(count, 1, 1024));
}

}  // namespace upg
