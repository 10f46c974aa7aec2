// A model in another program's file format.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "upg/error.h"
#include "upg/progress.h"

namespace upg {

/// A row of the list of formats and element types that export_model() writes.
struct ExportType {
  std::string_view format;  // "gguf"
  std::string_view type;    // "f16"
  double bits_per_weight;   // of a matrix
};
std::span<const ExportType> export_types();

struct ExportOptions {
  std::string format = "gguf";
  std::string type = "f16";  // of matrices; vectors are written as float32
  bool overwrite = false;    // replace a file that is there
  unsigned threads = 0;      // 0: one for each physical core the process may use
  Progress progress;         // in weights
};

struct ExportReport {
  std::string path;
  std::string format, type;
  std::string architecture;  // as the target format calls it
  uint64_t tensors = 0;
  uint64_t parameters = 0;
  uint64_t file_bytes = 0;
  double seconds = 0;
  std::vector<std::string> notes;  // what is not as in the source, and why; a sentence each
};

/// Writes the model `source`, a UPG file or a checkpoint directory, to the file `target`, which appears only when it is
/// whole. A piece of a tensor is in memory at a time. Throws Error: kUnsupported naming the architecture, option or
/// tokenizer part that the format cannot express, kInvalidArgument for an unknown format or type, or where `target` is
/// there and overwrite is false, kInvalidFile for weights that are not finite or do not fit the type.
ExportReport export_model(const std::string& source, const std::string& target, const ExportOptions& options = {});

}  // namespace upg
