// Models by name: ORG/NAME on a hub that speaks Hugging Face's protocol, kept in the cache that its other clients use.
// No hub is built in: the endpoint comes from the caller, from HF_ENDPOINT or from the configuration file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "upg/compress.h"
#include "upg/error.h"
#include "upg/progress.h"

namespace upg {

struct HubOptions {
  std::string endpoint;  // http:// or https://; empty: HF_ENDPOINT, then "endpoint" of the configuration file
  std::string revision;  // branch, tag or commit; empty: that of the name, else "main"
  bool offline = false;  // the cache alone; HF_HUB_OFFLINE=1 is the same
  // Shell patterns of names of files, * matching '/' too. Without `include` the files that a model needs are taken.
  std::vector<std::string> include, exclude;
  unsigned connections = 4;  // files that come at the same time
  unsigned retries = 5;      // of a request that fails, before it is given up; what has come is kept
  Progress progress;
};

/// Which of a repository's models is meant, where it has the same one in two forms.
enum class ModelForm {
  kAny,         // a UPG file if there is one, else the checkpoint
  kCheckpoint,  // config.json and safetensors
};

struct PulledFile {
  std::string name;  // in the repository
  uint64_t bytes = 0;
  uint64_t downloaded = 0;  // of these, now; the rest was there
};

struct PullReport {
  std::string repository;  // ORG/NAME
  std::string revision, commit;
  std::string path;  // what commands take: a folder of the cache, or a UPG file in it
  std::vector<PulledFile> files;
  uint64_t bytes = 0, downloaded = 0;
  double seconds = 0;
};

/// Whether the text has the form ORG/NAME, ORG/NAME/FILE.upg or either with :REVISION behind it.
bool is_model_name(std::string_view text);

/// Brings what the model needs into the cache. What is there is not fetched again, what was cut goes on; every file is
/// checked against the hub's hash. Throws Error: kInvalidArgument for names and endpoints, kNotFound for what the hub
/// does not have or show, kInvalidFile for replies and files that are wrong, kIo for the network and the disk.
PullReport pull_model(const std::string& name, const HubOptions& options = {}, ModelForm form = ModelForm::kAny);

/// The path of a model: `model` itself where it exists or is no name, else that of the cache, else it is pulled.
std::string resolve_model(const std::string& model, const HubOptions& options = {}, ModelForm form = ModelForm::kAny);

/// A checkpoint for compress() whose weights come as they are read and are not kept. The small files go to the cache;
/// the folder `work` is made, and removed with the object. Throws as pull_model, and where the hub cannot send ranges.
std::unique_ptr<ShardStream> stream_model(const std::string& name, const std::string& work,
                                          const HubOptions& options = {});

}  // namespace upg
