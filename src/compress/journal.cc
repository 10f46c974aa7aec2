#include "compress/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/file_io.h"
#include "codec/codec_table.h"
#include "format/checksum.h"

namespace upg {
namespace {

// The file: kMagic, the fingerprint, then records: bytes of the head (64 bits), the head (JSON), the parts' data, and
// the checksum of all of these.
constexpr std::string_view kMagic = "UPG journal 1\n";
constexpr uint64_t kMaxHead = 1 << 24;
constexpr uint64_t kPiece = 8 << 20;

std::span<const std::byte> bytes_of(const uint64_t& value) { return std::as_bytes(std::span(&value, 1)); }

}  // namespace

Journal::Journal(const std::string& target, const std::string& fingerprint) : path_(target + ".partial") {
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (fd_ < 0) fail_io("cannot write");
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    ::close(fd_);
    fail(ErrorCode::kIo, "{} is in use: another compression writes to the same place", path_);
  }
  struct stat info {};
  if (::fstat(fd_, &info) != 0) fail_io("cannot read");
  const auto size = static_cast<uint64_t>(info.st_size);
  const std::string expected = std::string(kMagic) + fingerprint;
  std::string begin(std::min<uint64_t>(expected.size(), size), '\0');
  read(0, std::as_writable_bytes(std::span(begin)));
  if (begin == expected) {
    size_ = expected.size();
    while (read_record(&size_, size)) {
    }
    if (::ftruncate(fd_, static_cast<off_t>(size_)) != 0) fail_io("cannot write");
  } else {
    if (::ftruncate(fd_, 0) != 0) fail_io("cannot write");
    write(std::as_bytes(std::span(expected)));
  }
}

Journal::~Journal() {
  if (fd_ >= 0) ::close(fd_);
}

// One record at *offset; false where there is no whole one.
bool Journal::read_record(uint64_t* offset, uint64_t size) {
  uint64_t at = *offset;
  uint64_t head_bytes = 0;
  if (size - at < 8) return false;
  read(at, std::as_writable_bytes(std::span(&head_bytes, 1)));
  at += 8;
  if (head_bytes > kMaxHead || head_bytes > size - at) return false;
  std::string text(head_bytes, '\0');
  read(at, std::as_writable_bytes(std::span(text)));
  at += head_bytes;
  Checksum checksum;
  checksum.update(bytes_of(head_bytes));
  checksum.update(std::as_bytes(std::span(text)));
  const auto head = nlohmann::ordered_json::parse(text, nullptr, false);
  if (head.is_discarded() || !head.is_object()) return false;
  Record record;
  record.begin = *offset;
  std::string name;
  try {
    name = head.at("name");
    record.note = head.at("note");
    record.codec = head.at("codec");
    record.rows = head.at("rows");
    record.cols = head.at("cols");
    for (const auto& json : head.at("parts")) {
      const DTypeInfo* dtype = find_dtype(json.at("dtype").get<std::string>());
      if (dtype == nullptr) return false;
      Part part{json.at("suffix"), dtype->type, json.at("shape"), at, json.at("bytes")};
      if (part.bytes > size - at) return false;
      at += part.bytes;
      record.parts.push_back(std::move(part));
    }
  } catch (const std::exception&) {  // JSON of another shape
    return false;
  }
  std::vector<std::byte> buffer;
  for (const Part& part : record.parts) {
    for (uint64_t done = 0; done < part.bytes; done += buffer.size()) {
      buffer.resize(std::min(kPiece, part.bytes - done));
      read(part.offset + done, buffer);
      checksum.update(buffer);
    }
  }
  std::string stored(kChecksumDigits, '\0');
  if (size - at < stored.size()) return false;
  read(at, std::as_writable_bytes(std::span(stored)));
  if (stored != checksum.hex()) return false;
  records_[name] = std::move(record);
  *offset = at + stored.size();
  return true;
}

const Journal::Record* Journal::find(const std::string& name) const {
  const auto found = records_.find(name);
  return found == records_.end() ? nullptr : &found->second;
}

const Journal::Record& Journal::append(const std::string& name, nlohmann::ordered_json note,
                                       const EncodedMatrix* encoded) {
  nlohmann::ordered_json head = {{"name", name},
                                 {"note", note},
                                 {"codec", encoded ? std::string(encoded->codec->id) : ""},
                                 {"rows", encoded ? encoded->rows : 0},
                                 {"cols", encoded ? encoded->cols : 0},
                                 {"parts", nlohmann::ordered_json::array()}};
  Record record{size_, std::move(note), head["codec"], head["rows"], head["cols"], {}};
  if (encoded)
    for (const EncodedMatrix::Component& part : encoded->components)
      head["parts"].push_back({{"suffix", part.suffix},
                               {"dtype", dtype_info(part.dtype).name},
                               {"shape", part.shape},
                               {"bytes", part.data.size()}});
  const std::string text = head.dump();
  const uint64_t head_bytes = text.size();
  Checksum checksum;
  auto put = [&](std::span<const std::byte> data) {
    checksum.update(data);
    write(data);
  };
  put(bytes_of(head_bytes));
  put(std::as_bytes(std::span(text)));
  if (encoded) {
    for (const EncodedMatrix::Component& part : encoded->components) {
      record.parts.push_back({part.suffix, part.dtype, part.shape, size_, part.data.size()});
      put(part.data);
    }
  }
  const std::string digits = checksum.hex();
  write(std::as_bytes(std::span(digits)));
  return records_[name] = std::move(record);
}

EncodedMatrix Journal::load(const Record& record) const {
  EncodedMatrix encoded{&find_codec(record.codec), record.rows, record.cols, {}, 0};
  for (const Part& part : record.parts) {
    auto& component = encoded.components.emplace_back(
        EncodedMatrix::Component{part.suffix, part.dtype, part.shape, std::vector<std::byte>(part.bytes)});
    read(part.offset, component.data);
  }
  return encoded;
}

void Journal::read(uint64_t offset, std::span<std::byte> data) const { read_all_at(fd_, offset, data, path_); }

void Journal::write(std::span<const std::byte> data) {
  write_all_at(fd_, size_, data, path_);
  size_ += data.size();
}

void Journal::cut(const std::string& name) {
  size_ = records_.at(name).begin;
  std::erase_if(records_, [&](const auto& record) { return record.second.begin >= size_; });
  if (::ftruncate(fd_, static_cast<off_t>(size_)) != 0) fail_io("cannot shorten");
}

void Journal::remove() { ::unlink(path_.c_str()); }

void Journal::fail_io(const char* what) const { fail(ErrorCode::kIo, "{} {}: {}", what, path_, std::strerror(errno)); }

}  // namespace upg
