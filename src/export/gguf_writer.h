// Writes GGUF files (version 3): metadata, then tensors, streamed piece by piece. Knows nothing of models.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/thread_pool.h"
#include "export/gguf_types.h"

namespace upg {

using GgufValue = std::variant<uint32_t, float, bool, std::string, std::vector<uint8_t>, std::vector<int32_t>,
                               std::vector<float>, std::vector<bool>, std::vector<std::string>>;
/// Keys and values in the order of the file.
using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

struct GgufTensor {
  std::string name;
  const GgufType* type = nullptr;
  std::vector<uint64_t> shape;  // row-major: the last dimension is a row
  uint64_t grain = 1;           // rows are read in whole grains
  /// Fills `out` with rows [row, row + grain), counted over all leading dimensions. Thread-safe.
  std::function<void(uint64_t row, float* out)> read;
  std::function<void()> done;  // called once the tensor is written; may be empty

  uint64_t cols() const { return shape.back(); }
  uint64_t rows() const;
  uint64_t elements() const { return rows() * cols(); }
};

/// Writes the file, which appears at `path` only when it is whole. `advance` is told the elements done and may throw.
/// Returns the file's bytes. Throws Error(kInvalidFile) naming a tensor with values that are not finite or do not fit
/// its type, Error(kIo) where the disk refuses.
uint64_t write_gguf(const std::string& path, const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors,
                    ThreadPool& pool, const std::function<void(uint64_t)>& advance = {});

}  // namespace upg
