#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"

namespace upg {

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not make open() wait
  if (fd < 0)
    fail(errno == ENOENT || errno == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kIo, "cannot open {}: {}", path,
         std::strerror(errno));
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd);
    fail(ErrorCode::kIo, "cannot read {}: it is not a regular file", path);
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_ > 0) {  // mmap refuses an empty range
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    const int error = errno;
    if (address == MAP_FAILED) {
      ::close(fd);
      fail(ErrorCode::kIo, "cannot map {} ({} bytes): {}", path, size_, std::strerror(error));
    }
    data_ = static_cast<const std::byte*>(address);
  }
  ::close(fd);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

namespace {

struct Pages {
  std::byte* begin;
  size_t count, size;
};

// The whole pages that `bytes` touch.
Pages pages_of(std::span<const std::byte> bytes) {
  const auto size = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data()) / size * size;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data()) + bytes.size();
  return {reinterpret_cast<std::byte*>(begin), (end - begin + size - 1) / size, size};
}

}  // namespace

void release_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(bytes.data()) + bytes.size()) / page * page;
  if (begin < end)
    ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);  // advice: failure is harmless
}

double resident_share(std::span<const std::byte> bytes) {
#if defined(__linux__)
  if (bytes.empty()) return 1;
  const Pages pages = pages_of(bytes);
  std::vector<unsigned char> resident(pages.count);
  if (::mincore(pages.begin, pages.count * pages.size, resident.data()) != 0) return 1;
  const auto n = std::count_if(resident.begin(), resident.end(), [](unsigned char page) { return (page & 1) != 0; });
  return static_cast<double>(n) / static_cast<double>(pages.count);
#else
  (void)bytes;
  return 1;
#endif
}

void read_ahead(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const Pages pages = pages_of(bytes);
#if defined(MADV_POPULATE_READ)
  if (::madvise(pages.begin, pages.count * pages.size, MADV_POPULATE_READ) == 0) return;
#endif
  ::madvise(pages.begin, pages.count * pages.size, MADV_WILLNEED);  // advice: failure is harmless
  for (size_t i = 0; i < bytes.size(); i += pages.size) {
    volatile std::byte touched = bytes[i];
    (void)touched;
  }
}

std::string read_file(const std::string& path) {
  const MappedFile file(path);
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
}

}  // namespace upg
