// A model's stored weights, from a UPG file or a checkpoint directory alike, handed out by name.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "codec/codec.h"
#include "format/checkpoint.h"
#include "format/upg_file.h"
#include "ops/linear.h"
#include "upg/progress.h"

namespace upg {

/// What is known of one stored weight without decoding it.
struct WeightInfo {
  std::string name;
  std::vector<uint64_t> shape;
  std::string codec;                     // the dense codec of its element type in a checkpoint
  uint64_t stored_bytes = 0;             // everything it costs: codes, scales, tables
  std::optional<double> relative_error;  // where the compressor recorded it
};

class Weights {
 public:
  /// `path` is a UPG file or a checkpoint directory.
  explicit Weights(const std::string& path);

  const std::string& path() const { return path_; }
  bool compressed() const { return upg_.has_value(); }
  const UpgFile* upg_file() const { return upg_ ? &*upg_ : nullptr; }
  const Checkpoint* checkpoint() const { return checkpoint_ ? &*checkpoint_ : nullptr; }
  const ModelTexts& texts() const { return texts_; }
  uint64_t file_bytes() const;
  std::vector<WeightInfo> list() const;
  bool has(std::string_view name) const;
  /// Reads into memory what is not there yet, unless memory is too small for all of it: one pass at the disk's speed
  /// instead of a page at a time when it is needed. Throws Error(kCancelled).
  void read_ahead(const Progress& progress) const;

  /// The matrix [rows, cols], validated. Views stay valid while this object lives.
  /// Throws Error(kInvalidFile) naming the tensor if it is missing or of another shape.
  Matrix matrix(const std::string& name, uint64_t rows, uint64_t cols);
  Linear linear(const std::string& name, uint64_t rows, uint64_t cols, bool to_stream = false) {
    return Linear(matrix(name, rows, cols), name, to_stream);
  }
  /// A vector [n], as float, all finite.
  std::vector<float> vector(const std::string& name, uint64_t n);

  /// Weights whose names begin so are not part of the model.
  void leave_out(const std::string& prefix) { left_out_.push_back(prefix); }
  bool is_left_out(std::string_view name) const;

  /// Throws Error(kInvalidFile) naming a stored weight that nobody asked for.
  void check_all_used() const;

 private:
  const UpgEntry& entry(const std::string& name);

  std::string path_;
  std::optional<UpgFile> upg_;
  std::optional<Checkpoint> checkpoint_;
  std::vector<UpgEntry> entries_;  // a checkpoint's tensors take the same form, one dense part each
  ModelTexts texts_;
  std::unordered_map<std::string_view, size_t> index_;  // of entries_
  std::set<std::string, std::less<>> used_;
  std::vector<std::string> left_out_;
};

}  // namespace upg
