#include "base/file_io.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace upg {
namespace {

constexpr size_t kPiece = size_t{1} << 30;  // systems limit one call to 2 GB

}  // namespace

void write_all_at(int fd, uint64_t offset, std::span<const std::byte> data, const std::string& path) {
  while (!data.empty()) {
    const ssize_t n = ::pwrite(fd, data.data(), std::min(data.size(), kPiece), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail(ErrorCode::kIo, "cannot write {}: {}", path, std::strerror(n < 0 ? errno : ENOSPC));
    offset += static_cast<uint64_t>(n);
    data = data.subspan(static_cast<size_t>(n));
  }
}

void read_all_at(int fd, uint64_t offset, std::span<std::byte> data, const std::string& path) {
  while (!data.empty()) {
    const ssize_t n = ::pread(fd, data.data(), std::min(data.size(), kPiece), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ErrorCode::kIo, "cannot read {}: {}", path, std::strerror(errno));
    if (n == 0) fail(ErrorCode::kIo, "cannot read {}: it ends before byte {}", path, offset + data.size());
    offset += static_cast<uint64_t>(n);
    data = data.subspan(static_cast<size_t>(n));
  }
}

void sync_folder(const std::string& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace upg
