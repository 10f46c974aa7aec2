#include "base/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/file_io.h"

namespace upg {

AtomicFile::AtomicFile(const std::string& path) : path_(path) {
  const size_t slash = path.rfind('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  folder_ = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (name.empty() || name == "." || name == "..")
    fail(ErrorCode::kInvalidArgument, "cannot write \"{}\": it names a folder, not a file", path);
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode))
    fail(ErrorCode::kInvalidArgument, "cannot write {}: it exists and is not a regular file", path);

  const std::string base = fmt::format("{}.{}.tmp.{}", slash == std::string::npos ? "" : folder_, name, ::getpid());
  // The plain name may be left over from a dead process of the same number, or in use by a second writer in this one.
  for (int attempt = 0; attempt < 100; ++attempt) {
    std::string temporary = attempt == 0 ? base : fmt::format("{}.{}", base, attempt);
    fd_ = ::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ >= 0) {
      temporary_ = std::move(temporary);
      return;
    }
    if (errno != EEXIST) break;
  }
  fail_io("create a file in its folder", errno);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      folder_(std::move(other.folder_)),
      temporary_(std::exchange(other.temporary_, {})),
      fd_(std::exchange(other.fd_, -1)) {}

void AtomicFile::fail_io(std::string_view what, int error) const {
  fail(ErrorCode::kIo, "cannot write {}: failed to {}: {}", path_, what, std::strerror(error));
}

void AtomicFile::write_at(uint64_t offset, std::span<const std::byte> data) {
  UPG_CHECK(fd_ >= 0);
  write_all_at(fd_, offset, data, path_);
}

void AtomicFile::commit() {
  UPG_CHECK(fd_ >= 0);
  if (::fsync(fd_) != 0) fail_io("bring its data to the disk", errno);
  if (::close(std::exchange(fd_, -1)) != 0) fail_io("close it", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_io("rename the finished file", errno);
  temporary_.clear();
  sync_folder(folder_);
}

void write_file(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write_at(0, std::as_bytes(std::span(text)));
  file.commit();
}

}  // namespace upg
