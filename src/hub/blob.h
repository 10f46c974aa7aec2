// One file of a repository into the cache: taken up where an earlier try ended, checked, then linked.
#pragma once

#include <atomic>
#include <string>

#include "hub/cache.h"
#include "hub/http.h"
#include "hub/listing.h"

namespace upg::hub {

/// How much of the files under way has come, for whoever shows it; counts down where something begins anew.
struct Received {
  std::atomic<int64_t> bytes{0};
};

/// Bytes of the file that are still to come; 0 where the cache has it.
uint64_t missing_bytes(const Cache& cache, const std::string& commit, const HubFile& file);

/// Fetches the file if the cache does not have it; bytes that came over the network. Throws Error(kInvalidFile) where
/// its hash is not the hub's, and as fetch() does; what has come stays as HASH.incomplete.
uint64_t fetch_blob(Http& http, const Cache& cache, const ModelName& name, const std::string& commit,
                    const HubFile& file, Received& received);

}  // namespace upg::hub
