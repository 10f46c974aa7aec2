#include "metrics.h"

#include <fmt/format.h>

#include <iterator>

#include "models.h"

namespace upg::serve {
namespace {

struct StatisticRow {
  const char* name;
  const char* type;
  const char* help;
  uint64_t SchedulerStatistics::*value;
};

constexpr StatisticRow kStatistics[] = {
    {"upg_generations_running", "gauge", "Generations in the batch.", &SchedulerStatistics::running},
    {"upg_generations_waiting", "gauge", "Generations in the queue.", &SchedulerStatistics::waiting},
    {"upg_overloaded", "gauge", "1 while a request is taken or refused at once.", &SchedulerStatistics::overloaded},
    {"upg_kv_positions_used", "gauge", "Positions of keys and values in use.", &SchedulerStatistics::positions_used},
    {"upg_kv_positions", "gauge", "Positions of keys and values there are.", &SchedulerStatistics::positions},
    {"upg_kv_blocks_held", "gauge", "Blocks of keys and values that are held.", &SchedulerStatistics::blocks_held},
    {"upg_kv_blocks_kept", "gauge", "Of earlier requests, when last nothing ran.", &SchedulerStatistics::blocks_kept},
    {"upg_generations_total", "counter", "Generations taken.", &SchedulerStatistics::requests},
    {"upg_generations_refused_total", "counter", "Generations refused.", &SchedulerStatistics::refused},
    {"upg_generations_cancelled_total", "counter", "Generations cancelled.", &SchedulerStatistics::cancelled},
    {"upg_prompt_tokens_total", "counter", "Tokens of prompts.", &SchedulerStatistics::prompt_tokens},
    {"upg_cached_tokens_total", "counter", "Tokens of prompts that were not read again.",
     &SchedulerStatistics::cached_tokens},
    {"upg_generated_tokens_total", "counter", "Tokens generated.", &SchedulerStatistics::generated_tokens},
    {"upg_steps_total", "counter", "Steps of the batch.", &SchedulerStatistics::steps},
};

// A label's value, between quotes.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out + '"';
}

}  // namespace

void Metrics::begin() {
  const std::scoped_lock lock(mutex_);
  ++active_;
}

void Metrics::end(const std::string& route, int status, double seconds) {
  const std::scoped_lock lock(mutex_);
  --active_;
  ++requests_[{route, status}];
  Times& times = times_[route];
  ++times.count;
  times.sum += seconds;
  for (size_t i = 0; i < kSeconds.size(); ++i)
    if (seconds <= kSeconds[i]) ++times.counts[i];
}

uint64_t Metrics::active() const {
  const std::scoped_lock lock(mutex_);
  return active_;
}

std::string Metrics::text(const Models& models) const {
  std::string out;
  const auto to = std::back_inserter(out);
  const auto describe = [&](const char* name, const char* type, const char* help) {
    fmt::format_to(to, "# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  };
  {
    const std::scoped_lock lock(mutex_);
    describe("upg_http_requests_active", "gauge", "Requests being answered.");
    fmt::format_to(to, "upg_http_requests_active {}\n", active_);
    describe("upg_http_requests_total", "counter", "Requests answered.");
    for (const auto& [key, count] : requests_)
      fmt::format_to(to, "upg_http_requests_total{{route={},status=\"{}\"}} {}\n", quoted(key.first), key.second,
                     count);
    describe("upg_http_request_seconds", "histogram", "Time from a request's body to the end of its response.");
    for (const auto& [route, times] : times_) {
      for (size_t i = 0; i < kSeconds.size(); ++i)
        fmt::format_to(to, "upg_http_request_seconds_bucket{{route={},le=\"{}\"}} {}\n", quoted(route), kSeconds[i],
                       times.counts[i]);
      fmt::format_to(to, "upg_http_request_seconds_bucket{{route={},le=\"+Inf\"}} {}\n", quoted(route), times.count);
      fmt::format_to(to, "upg_http_request_seconds_sum{{route={}}} {}\n", quoted(route), times.sum);
      fmt::format_to(to, "upg_http_request_seconds_count{{route={}}} {}\n", quoted(route), times.count);
    }
  }
  std::vector<std::pair<std::string, SchedulerStatistics>> all;
  for (const auto& model : models.loaded()) all.emplace_back(model->name, model->scheduler->statistics());
  for (const StatisticRow& row : kStatistics) {
    describe(row.name, row.type, row.help);
    for (const auto& [name, statistics] : all)
      fmt::format_to(to, "{}{{model={}}} {}\n", row.name, quoted(name), statistics.*row.value);
  }
  return out;
}

}  // namespace upg::serve
