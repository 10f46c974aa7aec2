#include "engine/admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace upg {
namespace {

using Seconds = Admission::Seconds;

// Overload has gone when nobody had to be refused for as long as a place is held, within these bounds.
constexpr Seconds kShortestCalm{2}, kLongestCalm{60};
constexpr Seconds kLongestRetry{600};
constexpr Seconds kLongestWait{1e8};  // a few years, which a clock can add
constexpr double kNewest = 0.2;       // weight of the newest time in the mean
// Under overload a prompt is taken if those ahead of it take at most such a part of the time that it takes itself: its
// first token then comes well within twice the time of an idle server.
constexpr uint64_t kAheadPart = 4;

}  // namespace

Seconds Admission::wait_behind(uint64_t others) const {
  return held_ * (static_cast<double>(others) / static_cast<double>(places_));
}

Admission::Refusal Admission::refusal(std::string reason, const Load& load) const {
  const Seconds wait = std::min(wait_behind(load.waiting + 1), kLongestRetry);
  return {std::move(reason), std::chrono::seconds(std::max<int64_t>(1, std::llround(std::ceil(wait.count()))))};
}

std::optional<Admission::Refusal> Admission::check(const Load& load, uint64_t prompt_tokens,
                                                   Clock::time_point now) const {
  const uint64_t there = load.running + load.waiting;
  if (queue_ == 0 || overloaded(now)) {  // nothing waits, not for other prompts either
    if (there >= places_) return refusal(fmt::format("all {} places are taken", places_), load);
    if (load.unread > prompt_tokens / kAheadPart) return refusal("other prompts are being read", load);
    return std::nullopt;
  }
  if (there < places_) return std::nullopt;
  const uint64_t behind = there - places_;
  if (behind >= queue_) return refusal(fmt::format("{} requests are waiting already", behind), load);
  if (wait_behind(behind) > queue_time_)
    return refusal(fmt::format("a place is not to be had within {:.0f} s", queue_time_.count()), load);
  return std::nullopt;
}

Admission::Refusal Admission::expired(const Load& load) const {
  return refusal(fmt::format("no place came free within {:.0f} s", queue_time_.count()), load);
}

void Admission::refused(Clock::time_point now) {
  overloaded_until_ = now + std::chrono::duration_cast<Clock::duration>(std::clamp(held_, kShortestCalm, kLongestCalm));
}

Admission::Clock::time_point Admission::deadline(Clock::time_point now) const {
  return now + std::chrono::duration_cast<Clock::duration>(std::min(queue_time_, kLongestWait));
}

void Admission::left(Seconds held) { held_ = held_.count() == 0 ? held : held_ * (1 - kNewest) + held * kNewest; }

}  // namespace upg
