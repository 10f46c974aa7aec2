// Writes safetensors files of any size: tensors are declared, then their data is streamed, then the file appears at
// once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/atomic_file.h"
#include "base/dtype.h"
#include "format/checksum.h"

namespace upg {

/// Use: declare() every tensor, append() their data (tensors in any order, each one's bytes in order), commit().
/// The data begins at a multiple of 64 bytes. Tensors whose size is a multiple of 64 bytes come first, so start at one;
/// the others follow by descending element size, so every tensor is aligned to its elements without holes. Without
/// commit() nothing appears at `path`. Not for use from several threads at once.
class SafetensorsWriter {
 public:
  /// Throws as AtomicFile does.
  explicit SafetensorsWriter(const std::string& path, std::map<std::string, std::string> metadata = {});

  /// Only before the first append(). Throws Error(kInvalidArgument) for a name used twice or a shape that overflows.
  void declare(std::string name, DType dtype, std::vector<uint64_t> shape);

  /// Throws Error(kInvalidArgument) for an unknown name or more bytes than declared, Error(kIo) where the disk refuses.
  void append(std::string_view name, std::span<const std::byte> data);

  /// Changes metadata any time before commit(). From the first append() on the header's size is fixed: the new header
  /// must not be longer than the old one (a shorter one is padded), so declare placeholders of full length.
  void set_metadata(const std::string& key, std::string value);

  /// Checksum of a tensor whose data is complete.
  std::string checksum(std::string_view name) const;

  /// Every declared tensor must be complete. `edit_header`, if given, may change the header's bytes but not their
  /// number. `check`, if given, is shown the whole file under its temporary name and may throw to keep it from
  /// appearing.
  void commit(const std::function<void(std::string& header)>& edit_header = {},
              const std::function<void(const std::string& path)>& check = {});

 private:
  struct Tensor {
    std::string name;
    DType dtype;
    std::vector<uint64_t> shape;
    uint64_t bytes = 0;
    uint64_t begin = 0;    // offset from the start of the data
    uint64_t written = 0;  // bytes so far
    std::optional<Checksum> running;
    std::string checksum;  // set when complete
  };

  void lay_out();
  std::string header() const;
  size_t index_of(std::string_view name) const;

  AtomicFile file_;
  std::map<std::string, std::string> metadata_;
  std::vector<Tensor> tensors_;  // in file order once laid out
  std::map<std::string, size_t, std::less<>> by_name_;
  uint64_t header_bytes_ = 0;  // reserved for the header with its padding; 0 until laid out
};

}  // namespace upg
