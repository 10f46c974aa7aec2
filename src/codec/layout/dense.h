// Byte layout of an uncompressed matrix: row-major [rows, cols], exactly as a checkpoint stores it, perhaps unaligned.
#pragma once

#include <stdint.h>

namespace upg {

struct DenseView {
  uint64_t rows;
  uint64_t cols;
  const unsigned char* data;  // [rows, cols] of the codec's element type; not necessarily aligned
};

}  // namespace upg
