// What the hub says of a repository: the commit of a revision, and the files in it. Nothing of it is believed
// unchecked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hub/http.h"
#include "hub/model_name.h"

namespace upg::hub {

struct HubFile {
  std::string name;  // safe, relative
  uint64_t bytes = 0;
  std::string hash;  // SHA-256 in 64 digits where `large`, else git's SHA-1 of the blob in 40
  bool large = false;
};

/// Throws Error(kNotFound) for a repository or revision that is not there or not shown, saying what to do;
/// Error(kIo) for the network, Error(kInvalidFile) for a reply that is wrong.
std::string commit_of(Http& http, const ModelName& name);

/// All files of the commit, by name.
std::vector<HubFile> list_files(Http& http, const ModelName& name, const std::string& commit);

/// One page of a listing, appended to `files`. Throws Error(kInvalidFile).
void parse_listing(std::string_view json, const std::string& where, std::vector<HubFile>& files);

/// The address with rel="next" in a Link header; empty where there is none.
std::string next_link(std::string_view header);

/// An answer that is neither 200 nor 206: HttpFailure where another try may help, else Error(kNotFound) or Error(kIo)
/// that says what to do.
[[noreturn]] void refuse(const HttpAnswer& answer, const ModelName& name, const Settings& settings,
                         const std::string& what);

/// Where a file of a commit is.
std::string file_url(const Settings& settings, const ModelName& name, const std::string& commit,
                     const std::string& file);

}  // namespace upg::hub
