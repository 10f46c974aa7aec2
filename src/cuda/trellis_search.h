// The encoder's search on the GPU: codec/trellis_search.cc, a group of sixteen lanes a row.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

namespace upg::cuda {

/// One block of 32 columns, in chain order, of many rows. Rows are what lanes are in codec/trellis_search.h, tiles of
/// sixteen of them.
struct BlockSearch {
  uint32_t bits, rows;    // rows: a multiple of 16
  uint64_t stride;        // floats between positions
  const float* target;    // [32][rows]
  const float* original;  // [32][rows]
  const float* weight;    // [32], of all rows; nullptr: `weights`
  const float* weights;   // [32][rows]
  const float* scale;     // [rows]
  const float* feedback;  // [32][32], rows `feedback_stride` apart, or nullptr
  uint64_t feedback_stride;
  const float* outlier_scale;  // [rows], or nullptr: no residual plane. What has no weight of the first `columns`
  uint32_t columns;            // columns of the matrix among the 32, by `order`; all others are padding
  const uint32_t* order;       // [32]: column of each position
  float level[2][16], step[16];

  // results
  uint32_t* words;  // [rows / 16][bits][16], tiles `words_stride` apart
  uint64_t words_stride;
  uint8_t* steps;  // [rows]
  float* errors;   // [rows][32], rows `errors_stride` apart: original - decoded; or nullptr
  uint64_t errors_stride;
  double* row_error;  // [rows], the block's weighted error is added; or nullptr
  int8_t* residual;   // [32][rows], the residual's values; with outlier_scale
};

/// Shared memory decides how many rows a block has: `shared_limit` bytes of it are allowed.
cudaError_t search_block(const BlockSearch& search, uint32_t shared_limit, cudaStream_t stream);

/// to[k][r] = from[r][order[k]] factor[r], 0 for padding, for rows below `rows`; 0 for rows up to `stride`: from
/// [rows, cols], to [n][stride].
cudaError_t arrange_rows(const float* from, uint32_t rows, uint32_t cols, const uint32_t* order, uint32_t n,
                         const float* factor, float* to, uint32_t stride, cudaStream_t stream);

/// scales [rows / 16][blocks][8] of steps [blocks][rows], as codec/layout/trellis.h says.
cudaError_t pack_steps(const uint8_t* steps, uint32_t rows, uint32_t blocks, uint8_t* scales, cudaStream_t stream);

}  // namespace upg::cuda
