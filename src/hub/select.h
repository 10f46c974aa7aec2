// Which files of a repository make a model.
#pragma once

#include <string>
#include <vector>

#include "hub/listing.h"

namespace upg::hub {

/// What to fetch of a listing. Where `index` is set its file names the shards, which come after it.
struct Selection {
  std::vector<HubFile> files;  // small ones first
  std::string upg;             // the model, where it is one UPG file
  std::string index;           // safetensors index whose shards are still to be added
};

/// Throws Error(kNotFound) naming what there is, where the repository holds no model of the form, or several UPG files.
Selection select_files(const std::vector<HubFile>& listing, const ModelName& name, const HubOptions& options,
                       ModelForm form);

/// Adds the shards that the index (JSON text) names. Throws Error(kInvalidFile) for an index that is none, kNotFound
/// for a shard that the listing lacks.
std::vector<HubFile> shards_of_index(const std::string& index, const std::vector<HubFile>& listing,
                                     const ModelName& name);

}  // namespace upg::hub
