// Where the hub and the cache are, and the token: options, environment, configuration file, in this order.
#pragma once

#include <string>

#include "upg/hub.h"

namespace upg::hub {

struct Settings {
  std::string endpoint;  // without a slash at the end; empty: none is set
  std::string token;     // empty: none. Goes to the endpoint's origin alone, and into no message
  std::string cache;     // the folder with models--ORG--NAME in it
  std::string ca_file;   // certificates to trust; empty: the system's
  bool offline = false;
  unsigned connections = 1, retries = 0;
  long timeout = 30;  // seconds without a byte before a connection counts as cut
};

/// Throws Error(kInvalidArgument) for values that are wrong, Error(kInvalidFile) naming a line of the configuration
/// file.
Settings settings(const HubOptions& options);

/// Throws Error(kInvalidArgument) that says what to set, where no endpoint is.
void need_endpoint(const Settings& settings, const std::string& model);

}  // namespace upg::hub
