// The HTTP server as a whole: options in, and it runs until it is told to stop.
#pragma once

#include <atomic>
#include <chrono>
#include <string>

#include "upg/engine.h"
#include "upg/scheduler.h"

namespace upg::serve {

struct ServeOptions {
  std::string model, models;  // a model, or a folder of them: one of the two
  std::string alias;          // the model's name in responses; empty: that of the file
  std::string host = "127.0.0.1";
  int port = 8080;           // 0: any free one
  std::string api_key_file;  // empty: no keys
  std::string cors;          // an origin, "*", or empty
  std::chrono::seconds idle_unload{0};
  size_t connections = 256;
  bool log_prompts = false;
  EngineOptions engine;
  SchedulerOptions scheduler;
};

/// Serves until `stop` is set, then answers what has begun, and returns. Says on stderr where it listens, and a line
/// for each request. Throws Error for options that are wrong, a model that does not open, an address that is taken.
void serve(const ServeOptions& options, const std::atomic<bool>& stop);

}  // namespace upg::serve
