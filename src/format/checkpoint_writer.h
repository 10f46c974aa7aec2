// Writes a dense Hugging Face checkpoint directory that transformers loads.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "format/model_texts.h"

namespace upg {

struct CheckpointTensor {
  std::string name;
  DType dtype = DType::kBF16;  // kBF16, kF16 or kF32
  std::vector<uint64_t> shape;
  /// Fills `out` with the elements from number `first` on, row-major. Always called for whole rows (of the last
  /// dimension).
  std::function<void(uint64_t first, std::span<float> out)> read;
};

struct CheckpointWriteOptions {
  uint64_t max_shard_bytes = 5'000'000'000;
  std::function<void(uint64_t done, uint64_t total)> progress;  // in elements; may throw to cancel
};

/// Creates `dir` where needed. Throws Error(kInvalidArgument) where it already holds a checkpoint's files, Error(kIo)
/// where the disk refuses. On any exception no shard, index or config remains (the folder may).
void write_checkpoint(const std::string& dir, const ModelTexts& texts, const std::vector<CheckpointTensor>& tensors,
                      const CheckpointWriteOptions& options = {});

}  // namespace upg
