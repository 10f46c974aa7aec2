// Counters of requests, and the text in which Prometheus reads them together with the schedulers' statistics.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace upg::serve {

class Models;

class Metrics {
 public:
  void begin();
  /// `route` is a path of the list of routes, not of a request: the number of its values is bounded.
  void end(const std::string& route, int status, double seconds);
  std::string text(const Models& models) const;
  uint64_t active() const;

 private:
  static constexpr std::array<double, 9> kSeconds = {0.005, 0.02, 0.1, 0.5, 2, 10, 30, 120, 600};
  struct Times {
    std::array<uint64_t, kSeconds.size()> counts{};
    uint64_t count = 0;
    double sum = 0;
  };
  mutable std::mutex mutex_;
  uint64_t active_ = 0;
  std::map<std::pair<std::string, int>, uint64_t> requests_;
  std::map<std::string, Times> times_;
};

}  // namespace upg::serve
