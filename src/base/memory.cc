#include "base/memory.h"

#include <sys/mman.h>

#include <algorithm>

namespace upg {

void* allocate_zeroed(uint64_t bytes) {
  // calloc of a large block maps zero pages without touching them.
  void* memory = std::calloc(std::max<uint64_t>(bytes, 1), 1);
#if defined(MADV_HUGEPAGE)
  constexpr uint64_t kHugePage = uint64_t{1} << 21;
  if (memory && bytes >= 2 * kHugePage) {
    const auto begin = (reinterpret_cast<uintptr_t>(memory) + kHugePage - 1) / kHugePage * kHugePage;
    const auto end = (reinterpret_cast<uintptr_t>(memory) + bytes) / kHugePage * kHugePage;
    ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice: failure is harmless
  }
#endif
  return memory;
}

}  // namespace upg
