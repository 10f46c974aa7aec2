// What the routes share: the models, the settings, the counters.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "metrics.h"
#include "models.h"

namespace upg::serve {

struct Service {
  std::unique_ptr<Models> models;
  Metrics metrics;
  std::atomic<bool> draining{false};
  bool log_prompts = false;
};

}  // namespace upg::serve
