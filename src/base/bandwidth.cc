#include "base/bandwidth.h"

#include <chrono>
#include <cstring>

#include "base/clones.h"
#include "base/error.h"

namespace upg {
namespace {

UPG_CLONES uint64_t read_all(const uint64_t* words, uint64_t n) {
  uint64_t sums[64] = {};
  for (uint64_t i = 0; i + 64 <= n; i += 64)
    for (uint64_t j = 0; j < 64; ++j) sums[j] ^= words[i + j];
  uint64_t sum = 0;
  for (uint64_t s : sums) sum ^= s;
  return sum;
}

}  // namespace

ReadBandwidth::ReadBandwidth() : memory_(allocate<std::byte>(kBytes)) {
  if (!memory_) fail(ErrorCode::kOutOfMemory, "no memory to measure its speed: {} bytes", +kBytes);
  std::memset(memory_.get(), 1, kBytes);  // pages never written are all the same one
}

double ReadBandwidth::measure(ThreadPool& pool) const {
  const auto start = std::chrono::steady_clock::now();
  pool.share(kBytes, kBytes / 1024, [&](uint64_t begin, uint64_t end, unsigned) {
    volatile uint64_t sink = read_all(reinterpret_cast<const uint64_t*>(memory_.get() + begin), (end - begin) / 8);
    (void)sink;
  });
  return static_cast<double>(kBytes) / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace upg
