#include "hub/blob.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/file_io.h"
#include "hub/digest.h"
#include "hub/transfer.h"

namespace upg::hub {
namespace {

constexpr uint64_t kPiece = 4 << 20;

uint64_t size_of(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) ? static_cast<uint64_t>(info.st_size) : 0;
}

bool exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0;
}

// HASH.incomplete: it outlives the process, and becomes the blob.
class Partial {
 public:
  Partial(const std::string& blob, const HubFile& file) : blob_(blob), path_(blob + ".incomplete") {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd_ < 0) fail_io("open");
    struct stat info {};
    if (::fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) fail_io("read");
    size_ = static_cast<uint64_t>(info.st_size);
    if (size_ > file.bytes) cut();
  }
  ~Partial() {
    if (fd_ >= 0) ::close(fd_);
  }
  Partial(const Partial&) = delete;
  Partial& operator=(const Partial&) = delete;

  uint64_t size() const { return size_; }

  // Of what is there already.
  void read_into(Digest& digest, const Http& http) const {
    std::vector<std::byte> buffer;
    for (uint64_t at = 0; at < size_; at += buffer.size()) {
      http.check_stopped();
      buffer.resize(std::min(kPiece, size_ - at));
      read_all_at(fd_, at, buffer, path_);
      digest.update(buffer);
    }
  }

  void write(std::span<const std::byte> data) {
    write_all_at(fd_, size_, data, path_);
    size_ += data.size();
  }

  void cut() {
    if (::ftruncate(fd_, 0) != 0) fail_io("write");
    size_ = 0;
  }

  void remove() { ::unlink(path_.c_str()); }

  void become_blob() {
    if (::fsync(fd_) != 0) fail_io("write");
    if (::rename(path_.c_str(), blob_.c_str()) != 0) fail_io("rename");
    sync_folder(blob_.substr(0, blob_.rfind('/')));
  }

 private:
  [[noreturn]] void fail_io(const char* what) const {
    fail(ErrorCode::kIo, "cannot {} {}: {}", what, path_, std::strerror(errno));
  }

  std::string blob_, path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

}  // namespace

uint64_t missing_bytes(const Cache& cache, const std::string& commit, const HubFile& file) {
  if (cache.has(commit, file) || (exists(cache.blob(file.hash)) && size_of(cache.blob(file.hash)) == file.bytes))
    return 0;
  const uint64_t there = size_of(cache.blob(file.hash) + ".incomplete");
  return there <= file.bytes ? file.bytes - there : file.bytes;
}

uint64_t fetch_blob(Http& http, const Cache& cache, const ModelName& name, const std::string& commit,
                    const HubFile& file, Received& received) {
  if (cache.has(commit, file)) return 0;
  const std::string blob = cache.blob(file.hash);
  make_folders(cache.folder() + "/blobs");
  const FileLock lock(cache.lock(file.hash), [&] { http.check_stopped(); });
  if (exists(blob) && size_of(blob) == file.bytes) {  // of another revision, or another process was faster
    cache.link(commit, file.name, file.hash);
    return 0;
  }
  uint64_t came = 0;
  Partial partial(blob, file);
  for (bool from_before = partial.size() > 0;; from_before = false) {
    Digest digest = digest_of(file);
    partial.read_into(digest, http);
    RangeTransfer transfer{name, commit, file, 0, file.bytes, partial.size(), {}, {}};
    transfer.write = [&](uint64_t, std::span<const std::byte> data) {
      partial.write(data);
      digest.update(data);
      came += data.size();
      received.bytes += static_cast<int64_t>(data.size());
    };
    transfer.restart = [&] {
      received.bytes -= static_cast<int64_t>(partial.size());
      partial.cut();
      digest = digest_of(file);
    };
    fetch(http, transfer);
    if (digest.hex() == file.hash) break;
    transfer.restart();
    if (!from_before) {  // a wrong beginning may be older than this try; nothing else may
      partial.remove();
      fail(ErrorCode::kInvalidFile,
           "{}: {}: its content does not have the hash that the hub gives for it; it is not kept. Try again, and if it "
           "stays so tell who runs the hub",
           name.id, file.name);
    }
  }
  partial.become_blob();
  cache.link(commit, file.name, file.hash);
  return came;
}

}  // namespace upg::hub
