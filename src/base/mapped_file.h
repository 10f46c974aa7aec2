// A whole file mapped read-only. The mapping lives as long as the object; views into it must not outlive it.
// Not defended against: another process cutting the file short while it is mapped (reading then raises SIGBUS).
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace upg {

class MappedFile {
 public:
  /// Throws Error(kNotFound) or Error(kIo), naming the file.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// Gives back the memory of the whole pages in `bytes`, which lie in a mapped file: they are read again when touched.
void release_pages(std::span<const std::byte> bytes);

/// Share of the pages of `bytes`, which lie in a mapped file, that are in memory; 1 where the system does not say.
double resident_share(std::span<const std::byte> bytes);

/// Reads `bytes`, which lie in a mapped file, into memory now, as fast as the disk gives them.
void read_ahead(std::span<const std::byte> bytes);

/// A small file's content. Throws as MappedFile does.
std::string read_file(const std::string& path);

}  // namespace upg
