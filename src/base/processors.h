// How many threads do work at full speed here.
#pragma once

#include <string>
#include <vector>

namespace upg {

/// Numbers of the processors that this process may run on; empty where the system does not say.
std::vector<unsigned> usable_processors();

/// Physical cores among `processors`, at most what the control group's quota allows: two threads of one core share its
/// vector units, and a thread without a processor makes all others wait for it. `root` is where /sys is looked for. At
/// least 1.
unsigned count_cores(const std::vector<unsigned>& processors, const std::string& root = "");

}  // namespace upg
