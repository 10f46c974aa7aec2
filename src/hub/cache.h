// The folder of one repository in the cache that huggingface_hub and its relatives use:
//   models--ORG--NAME/blobs/HASH                 contents, by the hub's hash; HASH.incomplete while it comes
//   models--ORG--NAME/refs/REVISION              the commit that a branch or tag meant last
//   models--ORG--NAME/snapshots/COMMIT/FILE      relative links to blobs
//   .locks/models--ORG--NAME/HASH.lock           held while a blob is written
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "hub/listing.h"

namespace upg::hub {

class Cache {
 public:
  Cache(const std::string& cache, const std::string& id);

  const std::string& folder() const { return folder_; }
  std::string snapshot(const std::string& commit) const;
  std::string pointer(const std::string& commit, const std::string& file) const;
  std::string blob(const std::string& hash) const;
  std::string lock(const std::string& hash) const;

  /// Whether the snapshot has the file, whole.
  bool has(const std::string& commit, const HubFile& file) const;
  /// Links the snapshot's file to a blob that is there. Throws Error(kIo).
  void link(const std::string& commit, const std::string& file, const std::string& hash) const;

  /// What `revision` meant last; a commit means itself. nullopt where nothing is known.
  std::optional<std::string> commit_of(const std::string& revision) const;
  void remember(const std::string& revision, const std::string& commit) const;
  /// Names and sizes of the files that a snapshot has, sorted; hashes are empty.
  std::vector<HubFile> files(const std::string& commit) const;

 private:
  std::string cache_, name_, folder_;
};

/// Holds a lock file; waits for another process that does, asking `waiting` several times a second.
class FileLock {
 public:
  FileLock(const std::string& path, const std::function<void()>& waiting);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_ = -1;
};

/// Throws Error(kIo).
void make_folders(const std::string& path);

/// Throws Error(kIo), naming both sizes, where `bytes` more do not fit the disk of `folder`.
void check_space(const std::string& folder, uint64_t bytes);

}  // namespace upg::hub
