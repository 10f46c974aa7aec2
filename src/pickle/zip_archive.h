// Reads entries of a ZIP archive in memory, with limits on how much a few bytes may grow to. Nothing is ever extracted
// to a disk, and names that try to lead somewhere are refused all the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct zip;

namespace upg::pickle {

/// Bytes and who keeps them: nobody where they lie in a mapped file.
struct Bytes {
  std::span<const std::byte> data;
  std::shared_ptr<const void> owner;
};

/// Whether the bytes begin as an archive does.
bool is_zip(std::span<const std::byte> bytes);

/// Not for use from several threads at once.
class ZipArchive {
 public:
  struct Entry {
    std::string name;
    uint64_t size = 0;  // unpacked
  };

  /// `bytes` must outlive the object; `where` begins messages. Throws Error(kInvalidFile) for an archive that is
  /// damaged, grows beyond the limits, or has names that are absolute, lead upwards or occur twice; Error(kUnsupported)
  /// for encryption and for other methods than stored and deflated.
  ZipArchive(std::span<const std::byte> bytes, std::string where);

  /// Files, not folders, in the archive's order.
  const std::vector<Entry>& entries() const { return entries_; }
  /// nullptr where there is none.
  const Entry* find(std::string_view name) const;
  /// Bytes of all entries, unpacked.
  uint64_t total_bytes() const { return total_; }
  /// Unpacks; checks the archive's checksum. Throws Error(kInvalidFile), also where the same entries are asked for
  /// again and again: every byte of the archive may be read a few times.
  Bytes read(const Entry& entry);

 private:
  void read_directory(uint64_t archive_bytes);

  std::string where_;
  std::unique_ptr<zip, void (*)(zip*)> zip_;
  std::vector<Entry> entries_;
  std::vector<uint64_t> indices_;  // of entries_, in the archive
  uint64_t total_ = 0;
  uint64_t reads_left_ = 0;
};

}  // namespace upg::pickle
