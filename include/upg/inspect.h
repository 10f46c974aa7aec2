// Looking at a model without running it; checking a file; turning it back into a dense checkpoint.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "upg/error.h"
#include "upg/progress.h"

namespace upg {

struct TensorReport {
  std::string name;
  std::vector<uint64_t> shape;
  std::string codec;
  uint64_t bytes = 0;                    // all that is stored for it: codes, scales, tables
  double bits_per_weight = 0;            // 8 * bytes / elements
  std::optional<double> relative_error;  // ||decoded - original|| / ||original||, where recorded
  std::optional<double> predicted_loss;  // nats of KL divergence that its error costs; known when it is compressed
};

struct ModelReport {
  std::string path;
  std::string architecture;
  std::string format;  // "UPG 3.0" or "checkpoint"
  std::vector<TensorReport> tensors;
  uint64_t parameters = 0;
  uint64_t weight_bytes = 0;   // sum of the tensors' bytes
  uint64_t file_bytes = 0;     // with configuration, tokenizer and header
  double bits_per_weight = 0;  // 8 * weight_bytes / parameters
  double ratio_fp32 = 0;       // 4 * parameters / weight_bytes
  // Nats of KL divergence a token from the original's predictions, known when it is compressed with calibration: the
  // sum of the tensors', and as measured on calibration text that was held out.
  std::optional<double> predicted_loss, measured_loss;
  // Matrices that calibration text never used, as experts that no token was sent to: compressed without it. Known when
  // it is compressed.
  std::vector<std::string> uncalibrated;
};

/// `path` is a UPG file or a checkpoint directory. Throws Error.
ModelReport inspect(const std::string& path);

/// The report as one self-contained HTML page: bits, error and, where known, loss of each matrix as a picture, and all
/// tensors as a table.
std::string report_html(const ModelReport& report);
/// Writes that page. Throws Error(kIo).
void write_report(const ModelReport& report, const std::string& path);

/// Reads a whole UPG file: structure, checksums, and that every tensor decodes. Throws Error naming what is wrong.
void verify(const std::string& path, const Progress& progress = {});

/// Writes the checkpoint directory `target` (it must not hold one yet): every matrix decoded, in the element type that
/// config.json names, with configuration and tokenizer. transformers loads it.
void decompress(const std::string& path, const std::string& target, const Progress& progress = {});

}  // namespace upg
