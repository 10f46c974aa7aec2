#include "compress/spool.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/error.h"

namespace upg {

Spool::Spool(const std::string& target) {
  const std::filesystem::path parent = std::filesystem::path(target).parent_path();
  directory_ = parent.empty() ? "." : parent.string();
  std::string name = directory_ + "/.upg.spool.XXXXXX";
  fd_ = ::mkstemp(name.data());
  if (fd_ < 0) fail(ErrorCode::kIo, "cannot write in {}: {}", directory_, std::strerror(errno));
  ::unlink(name.c_str());
}

Spool::~Spool() { ::close(fd_); }

uint64_t Spool::append(std::span<const std::byte> data) {
  const uint64_t offset = size_;
  while (!data.empty()) {
    const ssize_t written = ::pwrite(fd_, data.data(), data.size(), static_cast<off_t>(size_));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(ErrorCode::kIo, "cannot write temporary data in {}: {}", directory_, std::strerror(errno));
    size_ += static_cast<uint64_t>(written);
    data = data.subspan(static_cast<size_t>(written));
  }
  return offset;
}

void Spool::read(uint64_t offset, std::span<std::byte> data) const {
  while (!data.empty()) {
    const ssize_t got = ::pread(fd_, data.data(), data.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) fail(ErrorCode::kIo, "cannot read temporary data back in {}: {}", directory_, std::strerror(errno));
    offset += static_cast<uint64_t>(got);
    data = data.subspan(static_cast<size_t>(got));
  }
}

}  // namespace upg
