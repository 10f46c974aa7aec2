#include "pickle/zip_archive.h"

#include <zip.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "pickle/value.h"

namespace upg::pickle {
namespace {

constexpr uint64_t kMaxEntries = 200'000;
// What may come of packed bytes: arrays of indices shrink ten times at most; deflate reaches a thousand on zeros.
constexpr uint64_t kMaxGrowth = 100;
constexpr uint64_t kFreeGrowth = 64 << 20;  // beyond that factor
constexpr uint64_t kMaxReads = 16;          // of every byte, on average: a model is read twice
constexpr size_t kPiece = 4 << 20;

std::string message_of(zip_error_t& error) {
  std::string text = zip_error_strerror(&error);
  zip_error_fini(&error);
  return text;
}

bool leads_away(std::string_view name) {
  if (name.empty() || name.front() == '/' || name.find('\\') != std::string_view::npos ||
      name.find('\0') != std::string_view::npos || (name.size() > 1 && name[1] == ':'))
    return true;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    if (name.substr(begin, end - begin) == "..") return true;
    begin = end + 1;
  }
  return false;
}

}  // namespace

bool is_zip(std::span<const std::byte> bytes) {
  return bytes.size() >= 4 &&
         (std::memcmp(bytes.data(), "PK\3\4", 4) == 0 || std::memcmp(bytes.data(), "PK\5\6", 4) == 0);
}

ZipArchive::ZipArchive(std::span<const std::byte> bytes, std::string where)
    : where_(std::move(where)), zip_(nullptr, [](zip* archive) {
        if (archive != nullptr) zip_discard(archive);
      }) {
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* source = zip_source_buffer_create(bytes.data(), bytes.size(), 0, &error);
  if (source == nullptr)
    fail(ErrorCode::kInvalidFile, "{}: cannot be read as a ZIP archive: {}", where_, message_of(error));
  zip_.reset(zip_open_from_source(source, ZIP_RDONLY | ZIP_CHECKCONS, &error));
  if (zip_ == nullptr) {
    zip_source_free(source);
    fail(ErrorCode::kInvalidFile, "{}: a damaged ZIP archive: {}", where_, message_of(error));
  }
  zip_error_fini(&error);
  read_directory(bytes.size());
}

void ZipArchive::read_directory(uint64_t archive_bytes) {
  const zip_int64_t count = zip_get_num_entries(zip_.get(), 0);
  if (count < 0 || static_cast<uint64_t>(count) > kMaxEntries)
    fail(ErrorCode::kInvalidFile, "{}: the ZIP archive has {} entries; at most {} are read", where_, count,
         kMaxEntries);
  std::set<std::string_view> names;
  entries_.reserve(static_cast<size_t>(count));  // names point into it
  for (uint64_t i = 0; i < static_cast<uint64_t>(count); ++i) {
    zip_stat_t stat;
    zip_stat_init(&stat);
    constexpr zip_uint64_t kNeeded =
        ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if (zip_stat_index(zip_.get(), i, 0, &stat) != 0 || (stat.valid & kNeeded) != kNeeded)
      fail(ErrorCode::kInvalidFile, "{}: a damaged ZIP archive: entry {} cannot be read", where_, i);
    const std::string_view name = stat.name;
    if (leads_away(name))
      fail(ErrorCode::kInvalidFile, "{}: the ZIP archive has an entry named \"{}\", which leads out of it", where_,
           shown(name));
    if (name.back() == '/') continue;
    if (stat.encryption_method != ZIP_EM_NONE)
      fail(ErrorCode::kUnsupported, "{}: entry {} is encrypted; unpack the archive first", where_, shown(name));
    if (stat.comp_method != ZIP_CM_STORE && stat.comp_method != ZIP_CM_DEFLATE)
      fail(ErrorCode::kUnsupported, "{}: entry {} is packed by method {}; stored and deflated ones are read", where_,
           shown(name), stat.comp_method);
    const auto most = [](uint64_t packed) {
      return checked_add(checked_mul(packed, kMaxGrowth).value_or(UINT64_MAX), kFreeGrowth).value_or(UINT64_MAX);
    };
    total_ = checked_add(total_, stat.size).value_or(UINT64_MAX);
    if (stat.size > most(stat.comp_size) || total_ > most(archive_bytes))
      fail(
          ErrorCode::kInvalidFile,
          "{}: entry {} would grow from {} to {} bytes: that is no model's array. Unpack the archive and save it again",
          where_, shown(name), stat.comp_size, stat.size);
    entries_.push_back({std::string(name), stat.size});
    indices_.push_back(i);
    if (!names.insert(entries_.back().name).second)
      fail(ErrorCode::kInvalidFile, "{}: the ZIP archive has two entries named {}", where_, shown(name));
  }
  reads_left_ = checked_mul(total_, kMaxReads).value_or(UINT64_MAX);
}

const ZipArchive::Entry* ZipArchive::find(std::string_view name) const {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.name == name; });
  return found == entries_.end() ? nullptr : &*found;
}

Bytes ZipArchive::read(const Entry& entry) {
  if (entry.size > reads_left_)
    fail(ErrorCode::kInvalidFile, "{}: refers to the same entries of the ZIP archive over and over", where_);
  reads_left_ -= entry.size;
  const uint64_t index = indices_[static_cast<size_t>(&entry - entries_.data())];
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> file(zip_fopen_index(zip_.get(), index, 0), zip_fclose);
  const auto damaged = [&](std::string_view why) {
    fail(ErrorCode::kInvalidFile, "{}: entry {} of the ZIP archive is damaged: {}", where_, shown(entry.name), why);
  };
  if (file == nullptr) damaged(zip_strerror(zip_.get()));
  auto bytes = std::make_shared<std::vector<std::byte>>();
  for (;;) {  // grows as data arrive, not as the directory promises
    const size_t done = bytes->size();
    bytes->resize(done + kPiece);
    const zip_int64_t got = zip_fread(file.get(), bytes->data() + done, kPiece);
    if (got < 0) damaged(zip_file_strerror(file.get()));
    bytes->resize(done + static_cast<size_t>(got));
    if (bytes->size() > entry.size) break;
    if (got == 0) break;
  }
  if (bytes->size() != entry.size)
    damaged(fmt::format("it has another size than the {} bytes in the directory", entry.size));
  return {*bytes, bytes};
}

}  // namespace upg::pickle
