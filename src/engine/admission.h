// Who may come in: requests wait for a place in a queue that is bounded in number and in time, and once it has
// overflowed nothing waits any more until the load has gone. Told the time and the load; knows no threads and no
// requests.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace upg {

class Admission {
 public:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;

  /// `places` run together, `queue` may wait besides, each for no longer than `queue_time`.
  Admission(uint64_t places, uint64_t queue, Seconds queue_time)
      : places_(places), queue_(queue), queue_time_(queue_time) {}

  struct Load {
    uint64_t running = 0, waiting = 0;
    uint64_t unread = 0;  // tokens of prompts that were taken and are still to be read
  };
  struct Refusal {
    std::string reason;
    std::chrono::seconds retry_after;  // when a place is expected
  };

  /// nullopt: a request with a prompt of so many tokens may come in.
  std::optional<Refusal> check(const Load& load, uint64_t prompt_tokens, Clock::time_point now) const;
  /// For one that has waited its time in vain.
  Refusal expired(const Load& load) const;
  /// A request was refused: there is overload now, and for a while.
  void refused(Clock::time_point now);
  /// Until when one that was taken now may wait.
  Clock::time_point deadline(Clock::time_point now) const;
  /// A request has left its place after so long.
  void left(Seconds held);
  bool overloaded(Clock::time_point now) const { return now < overloaded_until_; }

 private:
  Seconds wait_behind(uint64_t others) const;
  Refusal refusal(std::string reason, const Load& load) const;

  uint64_t places_, queue_;
  Seconds queue_time_;
  Seconds held_{0};  // a place, by a request, lately
  Clock::time_point overloaded_until_{};
};

}  // namespace upg
