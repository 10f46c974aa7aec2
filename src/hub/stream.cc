// A checkpoint for compress() whose shards are on the disk only as far as they are being read.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/file_io.h"
#include "format/safetensors.h"
#include "hub/digest.h"
#include "hub/pull.h"
#include "hub/transfer.h"

namespace upg {
namespace hub {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kFirstFetch = 256 << 10;  // most headers are shorter
constexpr uint64_t kPiece = 4 << 20;

// A file of the shard's size that takes no more disk than its header and what was fetched last.
class SparseShard {
 public:
  SparseShard(std::string path, HubFile file) : path_(std::move(path)), file_(std::move(file)) {
    ::unlink(path_.c_str());  // of a process that was killed
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd_ < 0 || ::ftruncate(fd_, static_cast<off_t>(file_.bytes)) != 0) fail_io("write");
  }
  SparseShard(SparseShard&& other) noexcept
      : path_(std::move(other.path_)),
        file_(std::move(other.file_)),
        fd_(std::exchange(other.fd_, -1)),
        header_(other.header_),
        at_(other.at_),
        digest_(std::move(other.digest_)) {}
  SparseShard& operator=(SparseShard&&) = delete;
  ~SparseShard() {
    if (fd_ < 0) return;
    ::close(fd_);
    ::unlink(path_.c_str());
  }

  const HubFile& file() const { return file_; }

  void fetch_header(Http& http, const ModelName& name, const std::string& commit) {
    uint64_t have = std::min(file_.bytes, kFirstFetch), bytes = 0;
    get(http, name, commit, 0, have);
    if (have < sizeof(bytes)) fail(ErrorCode::kInvalidFile, "{}: {}: it is too short for a shard", name.id, file_.name);
    read_all_at(fd_, 0, std::as_writable_bytes(std::span(&bytes, 1)), path_);
    if (bytes > kMaxSafetensorsHeader || bytes > file_.bytes - sizeof(bytes))
      fail(ErrorCode::kInvalidFile, "{}: {}: a header of {} bytes does not fit it; this is no safetensors file",
           name.id, file_.name, bytes);
    header_ = sizeof(bytes) + bytes;
    if (header_ > have) get(http, name, commit, have, header_);
    release();
  }

  void fetch(Http& http, const ModelName& name, const std::string& commit, uint64_t begin, uint64_t end) {
    if (!digest_ || begin == header_) {
      digest_ = digest_of(file_);
      at_ = 0;
      hash_to(header_);
    }
    UPG_CHECK(begin == at_ && begin <= end && end <= file_.bytes);
    get(http, name, commit, begin, end);
    hash_to(end);
  }

  void release() {
    if (::ftruncate(fd_, static_cast<off_t>(header_)) != 0 || ::ftruncate(fd_, static_cast<off_t>(file_.bytes)) != 0)
      fail_io("write");
  }

  void finish(const ModelName& name) {
    if (!digest_) {  // of no tensors
      digest_ = digest_of(file_);
      hash_to(header_);
    }
    if (at_ != file_.bytes || digest_->hex() != file_.hash)
      fail(ErrorCode::kInvalidFile,
           "{}: {}: its content does not have the hash that the hub gives for it; nothing made of it is kept", name.id,
           file_.name);
    digest_.reset();
  }

 private:
  [[noreturn]] void fail_io(const char* what) const {
    fail(ErrorCode::kIo, "cannot {} {}: {}", what, path_, std::strerror(errno));
  }

  void get(Http& http, const ModelName& name, const std::string& commit, uint64_t begin, uint64_t end) {
    RangeTransfer transfer{name, commit, file_, begin, end, begin, {}, [] {}};
    transfer.write = [&](uint64_t at, std::span<const std::byte> data) { write_all_at(fd_, at, data, path_); };
    hub::fetch(http, transfer);
  }

  // After the fetch and not during it: a range that began anew must be hashed once.
  void hash_to(uint64_t end) {
    std::vector<std::byte> buffer;
    for (; at_ < end; at_ += buffer.size()) {
      buffer.resize(std::min(kPiece, end - at_));
      read_all_at(fd_, at_, buffer, path_);
      digest_->update(buffer);
    }
  }

  std::string path_;
  HubFile file_;
  int fd_ = -1;
  uint64_t header_ = 0;  // where the tensors' data begin
  uint64_t at_ = 0;      // up to where the digest is
  std::optional<Digest> digest_;
};

class HubStream : public ShardStream {
 public:
  HubStream(const ModelName& name, const std::string& work, const HubOptions& options)
      : name_(name), settings_(hub::settings(options)), work_(work) {
    try {
      open(options);
    } catch (...) {
      clean();
      throw;
    }
  }

  ~HubStream() override { clean(); }

  const std::string& folder() const override { return work_; }

  std::string identity() const override {
    std::string text = commit_;
    for (const SparseShard& shard : shards_) text += " " + shard.file().hash;
    return text;
  }

  void fetch(const std::string& shard, uint64_t begin, uint64_t end, const std::function<bool()>& stopped) override {
    stopped_ = stopped;
    if (!http_) http_.emplace(settings_, [this] { return stopped_(); });  // one connection for all
    find(shard).fetch(*http_, name_, commit_, begin, end);
  }
  void release(const std::string& shard) override { find(shard).release(); }
  void finish(const std::string& shard) override { find(shard).finish(name_); }

 private:
  void open(const HubOptions& options) {
    if (settings_.offline)
      fail(ErrorCode::kInvalidArgument, "{}: weights cannot be streamed offline; leave --stream out", name_.id);
    need_endpoint(settings_, name_.id);
    Pull pull(name_, settings_, options);
    commit_ = pull.commit();
    Selection selection = select_files(pull.listing(), name_, options, ModelForm::kCheckpoint);
    std::vector<HubFile> shards;
    if (selection.index.empty()) {
      std::erase_if(selection.files, [&](const HubFile& file) {
        const bool weights = file.name.ends_with(".safetensors");
        if (weights) shards.push_back(file);
        return weights;
      });
    }
    PullReport report;
    pull.fetch(selection.files, report);
    if (!selection.index.empty()) shards = pull.shards(selection);

    if (::mkdir(work_.c_str(), 0777) != 0 && errno != EEXIST)
      fail(ErrorCode::kIo, "cannot make the folder {}: {}", work_, std::strerror(errno));
    lock_ = ::open(work_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock_ < 0 || ::flock(lock_, LOCK_EX | LOCK_NB) != 0)
      fail(ErrorCode::kIo, "{} is in use: another compression writes to the same place", work_);
    for (const HubFile& file : selection.files) {
      const std::string link = work_ + "/" + file.name;
      ::unlink(link.c_str());
      links_.push_back(link);
      if (::symlink(fs::absolute(pull.cache().pointer(commit_, file.name)).c_str(), link.c_str()) != 0)
        fail(ErrorCode::kIo, "cannot link {}: {}", link, std::strerror(errno));
    }
    uint64_t done = 0;
    const auto stopped = [&] { return options.progress && !options.progress("fetching headers", done, shards.size()); };
    Http http(settings_, stopped);
    for (const HubFile& shard : shards) {
      shards_.emplace_back(work_ + "/" + shard.name, shard);
      shards_.back().fetch_header(http, name_, commit_);
      ++done;
    }
  }

  SparseShard& find(const std::string& shard) {
    for (SparseShard& each : shards_)
      if (each.file().name == shard) return each;
    fail(ErrorCode::kInvalidArgument, "{}: there is no shard {}", name_.id, shard);
  }

  void clean() {
    shards_.clear();
    for (const std::string& link : links_) ::unlink(link.c_str());
    ::rmdir(work_.c_str());  // stays where it holds anything else
    if (lock_ >= 0) ::close(lock_);
  }

  ModelName name_;
  Settings settings_;
  std::string work_, commit_;
  int lock_ = -1;
  std::vector<std::string> links_;
  std::vector<SparseShard> shards_;
  std::function<bool()> stopped_;
  std::optional<Http> http_;
};

}  // namespace
}  // namespace hub

std::unique_ptr<ShardStream> stream_model(const std::string& name, const std::string& work, const HubOptions& options) {
  return std::make_unique<hub::HubStream>(hub::named(name, options), work, options);
}

}  // namespace upg
