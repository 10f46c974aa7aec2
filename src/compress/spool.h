// Encoded parts on disk until all are known: the header of a safetensors file comes first and needs every size, and the
// parts of a large model do not fit in memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace upg {

/// A file without a name in the target's directory: it is gone when the process ends, however it ends.
class Spool {
 public:
  /// `target` is the file that will be written in the end. Throws Error(kIo) naming the directory.
  explicit Spool(const std::string& target);
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  /// Appends; returns the offset. Throws Error(kIo), for instance when the disk is full.
  uint64_t append(std::span<const std::byte> data);
  /// Reads back data.size() bytes.
  void read(uint64_t offset, std::span<std::byte> data) const;

 private:
  std::string directory_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

}  // namespace upg
