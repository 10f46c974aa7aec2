// The limit that generation is measured against: how fast all threads together read memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/memory.h"
#include "base/thread_pool.h"

namespace upg {

class ReadBandwidth {
 public:
  ReadBandwidth();
  /// Bytes a second of one pass over memory that no cache holds, each thread its own part.
  double measure(ThreadPool& pool) const;

 private:
  static constexpr uint64_t kBytes = uint64_t{1} << 30;
  Memory<std::byte> memory_;
};

}  // namespace upg
