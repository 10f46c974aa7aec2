// How the library reports long work: it calls back, the application draws. The library itself never prints.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace upg {

/// Called from the thread that started the work, several times a second at most.
/// `stage` names what is being worked on; done and total are in the same unit (bytes, weights or tokens).
/// Returning false asks the work to stop: it then throws Error(kCancelled) and leaves nothing half-written.
using Progress = std::function<bool(std::string_view stage, uint64_t done, uint64_t total)>;

}  // namespace upg
