// Writing a file so that its name shows either the old content or the complete new one, never a part of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace upg {

/// A temporary file `.<name>.tmp.<pid>` beside the target, renamed over it by commit(). Without commit() the destructor
/// removes it, so an exception leaves nothing behind. Not for use from several threads at once.
class AtomicFile {
 public:
  /// Throws Error(kInvalidArgument) where the target is something other than a regular file, Error(kIo) where the
  /// folder is missing or not writable.
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;

  const std::string& path() const { return path_; }
  /// What it is called until commit().
  const std::string& temporary_path() const { return temporary_; }

  /// Writes at any offset; gaps read as zeros. Throws Error(kIo) naming the target and the system's reason (disk
  /// full...).
  void write_at(uint64_t offset, std::span<const std::byte> data);

  /// Data to the disk, rename, folder to the disk. The object takes no further writes.
  void commit();

 private:
  [[noreturn]] void fail_io(std::string_view what, int error) const;

  std::string path_;
  std::string folder_;
  std::string temporary_;  // empty once committed or moved from
  int fd_ = -1;
};

/// A small file in one go.
void write_file(const std::string& path, std::string_view text);

}  // namespace upg
