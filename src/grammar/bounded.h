// Work on a stranger's input that cannot be interrupted: tried in a child process first, which has limits.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace upg::grammar {

struct Bounds {
  double seconds = 10;
  unsigned threads = 1;       // that may use up the seconds at the same time
  uint64_t memory = 1 << 30;  // besides what the process has; not enforced on systems without /proc
};

/// Runs `work` in a fork of this process and waits for it. Throws Error(kInvalidArgument) with the message of the Error
/// that `work` threw, or saying that it went over a bound or crashed; `what` names it ("the grammar"). Nothing that
/// `work` changes is seen here.
void try_bounded(const Bounds& bounds, const std::string& what, const std::function<void()>& work);

}  // namespace upg::grammar
