// What pull_model() and stream_model() share: the listing of a revision, and files brought into the cache together.
#pragma once

#include <string>
#include <vector>

#include "hub/cache.h"
#include "hub/listing.h"
#include "hub/select.h"

namespace upg::hub {

/// The name as given, with the revision of the options. Throws Error(kInvalidArgument).
ModelName named(const std::string& text, const HubOptions& options);

class Pull {
 public:
  /// Asks the hub for commit and listing. Throws as pull_model().
  Pull(const ModelName& name, const Settings& settings, const HubOptions& options);

  const std::string& commit() const { return commit_; }
  const std::vector<HubFile>& listing() const { return listing_; }
  const Cache& cache() const { return cache_; }

  /// Brings the files into the cache, `connections` at a time, and notes them in `report`.
  void fetch(const std::vector<HubFile>& files, PullReport& report);
  /// The shards of the selection's index, which must be in the cache already.
  std::vector<HubFile> shards(const Selection& selection) const;

 private:
  ModelName name_;
  const Settings& settings_;
  const HubOptions& options_;
  Cache cache_;
  std::string commit_;
  std::vector<HubFile> listing_;
};

}  // namespace upg::hub
