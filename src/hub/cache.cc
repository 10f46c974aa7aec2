#include "hub/cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/mapped_file.h"

namespace upg::hub {
namespace {

namespace fs = std::filesystem;

std::string folder_name(std::string id) {
  const size_t slash = id.find('/');
  return "models--" + id.replace(slash, 1, "--");
}

std::string parent(const std::string& path) { return path.substr(0, path.rfind('/')); }

}  // namespace

Cache::Cache(const std::string& cache, const std::string& id)
    : cache_(cache), name_(folder_name(id)), folder_(cache + "/" + name_) {}

std::string Cache::snapshot(const std::string& commit) const { return folder_ + "/snapshots/" + commit; }
std::string Cache::pointer(const std::string& commit, const std::string& file) const {
  return snapshot(commit) + "/" + file;
}
std::string Cache::blob(const std::string& hash) const { return folder_ + "/blobs/" + hash; }
std::string Cache::lock(const std::string& hash) const { return cache_ + "/.locks/" + name_ + "/" + hash + ".lock"; }

bool Cache::has(const std::string& commit, const HubFile& file) const {
  struct stat info {};
  return ::stat(pointer(commit, file.name).c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
         static_cast<uint64_t>(info.st_size) == file.bytes;
}

void Cache::link(const std::string& commit, const std::string& file, const std::string& hash) const {
  const std::string path = pointer(commit, file);
  make_folders(parent(path));
  std::string target = "../../blobs/" + hash;  // from snapshots/COMMIT
  for (const char c : file)
    if (c == '/') target.insert(0, "../");
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  ::unlink(temporary.c_str());
  if (::symlink(target.c_str(), temporary.c_str()) != 0) {
    // A file system without links: the file itself goes where the link would be.
    if (errno != EPERM && errno != ENOTSUP && errno != ENOSYS)
      fail(ErrorCode::kIo, "cannot link {}: {}", path, std::strerror(errno));
    if (::rename(blob(hash).c_str(), path.c_str()) != 0)
      fail(ErrorCode::kIo, "cannot move a file to {}: {}", path, std::strerror(errno));
    return;
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    fail(ErrorCode::kIo, "cannot link {}: {}", path, std::strerror(error));
  }
}

std::optional<std::string> Cache::commit_of(const std::string& revision) const {
  if (is_commit(revision)) return revision;
  const std::string path = folder_ + "/refs/" + revision;
  std::error_code none;
  if (!fs::is_regular_file(path, none)) return std::nullopt;
  std::string commit = read_file(path);
  while (!commit.empty() && commit.back() == '\n') commit.pop_back();
  return is_commit(commit) ? std::optional(commit) : std::nullopt;
}

void Cache::remember(const std::string& revision, const std::string& commit) const {
  if (revision == commit || commit_of(revision) == commit) return;
  const std::string path = folder_ + "/refs/" + revision;
  make_folders(parent(path));
  write_file(path, commit);
}

std::vector<HubFile> Cache::files(const std::string& commit) const {
  std::vector<HubFile> found;
  std::error_code none;
  const fs::path root = snapshot(commit);
  for (fs::recursive_directory_iterator entry(root, none), end; !none && entry != end; entry.increment(none)) {
    std::error_code unreadable;
    if (!fs::is_regular_file(entry->path(), unreadable)) continue;  // a link whose blob is gone is no file
    const uint64_t bytes = fs::file_size(entry->path(), unreadable);
    if (!unreadable) found.push_back({entry->path().lexically_relative(root).string(), bytes, "", false});
  }
  std::sort(found.begin(), found.end(), [](const HubFile& a, const HubFile& b) { return a.name < b.name; });
  return found;
}

FileLock::FileLock(const std::string& path, const std::function<void()>& waiting) {
  make_folders(parent(path));
  for (;;) {
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0664);
    if (fd_ < 0) fail(ErrorCode::kIo, "cannot open {}: {}", path, std::strerror(errno));
    while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) return;  // a file system without locks: files are checked anyway
      try {
        waiting();
      } catch (...) {
        ::close(fd_);
        throw;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    struct stat mine {
    }, there{};
    if (::fstat(fd_, &mine) == 0 && ::stat(path.c_str(), &there) == 0 && mine.st_ino == there.st_ino) return;
    ::close(fd_);  // removed by its holder while this one waited
  }
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);
}

void make_folders(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) fail(ErrorCode::kIo, "cannot make the folder {}: {}", path, error.message());
}

void check_space(const std::string& folder, uint64_t bytes) {
  std::error_code unknown;
  const fs::space_info space = fs::space(folder, unknown);
  if (unknown || space.available >= bytes) return;
  constexpr double kGb = 1e9;
  fail(ErrorCode::kIo, "{:.2f} GB are needed in {}, {:.2f} GB are free: make room, or set HF_HUB_CACHE to another disk",
       static_cast<double>(bytes) / kGb, folder, static_cast<double>(space.available) / kGb);
}

}  // namespace upg::hub
