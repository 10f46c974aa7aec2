// Encoded matrices on disk until all are known: the header of a safetensors file comes first and needs every size, and
// the parts of a large model do not fit in memory. The journal outlives an interrupted compression, which goes on where
// it stopped when it is started again with the same input and options.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "codec/codec.h"

namespace upg {

class Journal {
 public:
  struct Part {
    std::string suffix;
    DType dtype;
    std::vector<uint64_t> shape;
    uint64_t offset;  // in the journal
    uint64_t bytes;
  };
  struct Record {
    uint64_t begin = 0;           // in the journal
    nlohmann::ordered_json note;  // what the writer wants to remember with it
    std::string codec;            // empty: a note alone
    uint64_t rows = 0;
    uint64_t cols = 0;
    std::vector<Part> parts;
  };

  /// Opens `target`.partial. Whole records in it are kept if it was begun with the same `fingerprint` (of
  /// kChecksumDigits characters); all else is cut
  /// off. Throws Error(kIo), also where another process holds it.
  Journal(const std::string& target, const std::string& fingerprint);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  const std::string& path() const { return path_; }
  bool empty() const { return records_.empty(); }
  /// nullptr where there is none.
  const Record* find(const std::string& name) const;
  const Record& append(const std::string& name, nlohmann::ordered_json note, const EncodedMatrix* encoded = nullptr);
  EncodedMatrix load(const Record& record) const;
  /// Fills `data` from `offset`.
  void read(uint64_t offset, std::span<std::byte> data) const;
  /// Gives back the disk space of the record and of all that were appended after it, which are gone then.
  void cut(const std::string& name);
  /// Deletes the file.
  void remove();

 private:
  bool read_record(uint64_t* offset, uint64_t size);
  void write(std::span<const std::byte> data);
  [[noreturn]] void fail_io(const char* what) const;

  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
  std::map<std::string, Record> records_;
};

}  // namespace upg
