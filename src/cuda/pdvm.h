// Running a program of stages on the GPU. One kernel does it: how many stages a launch has is all that differs between
// kinds of fusion.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/program.h"

namespace upg::cuda {

/// Where things lie in a block's shared memory, in bytes: what Scratch points to, and the rings of weights.
struct SharedPlaces {
  uint32_t q, sums, spans, zero, x, stream, reduce, steps, readings, barriers, rings;
};

/// What a launch needs to know, the same for all launches of a program.
struct Machine {
  const Stage* stages;      // on the device
  const Reading* readings;  // on the device
  uint32_t readings_count;
  State* state;                // on the device
  uint32_t blocks;             // one a multiprocessor
  uint32_t slots, slot_bytes;  // of each warp's ring, a unit a slot
  uint32_t widest_step;        // bytes: least that a slot has room for
  uint32_t input_blocks;       // widest slice of any product's input, in blocks of 32
  uint32_t residual_columns;   // most columns of a matrix that has a residual
  uint32_t hidden;             // of the residual stream, rounded up to 4
  uint32_t sum_floats;
  uint32_t sum_slots;
  uint32_t most_panels;  // of a block
  SharedPlaces places;
  uint32_t shared_bytes;
  uint32_t chained;  // launches of one stage start before the one before them ends: compute capability 9.0 on
  uint32_t one;      // 1, set by launch(): trellis.cuh
};

/// Sets slots, places and shared_bytes from the rest, within what a block may have, and slots for one step where there
/// is no room for larger ones. `bulk_copies`: the GPU has them (9.0). Returns false if not even those have room.
bool fit_shared_memory(Machine* machine, uint32_t limit, bool bulk_copies);

/// Stages [begin, end), and which readings are theirs.
struct StageRange {
  uint32_t begin, end, first_reading, end_reading;
};

/// Enqueues the stages as one kernel. Several stages need all blocks to run at once.
cudaError_t launch(const Machine& machine, StageRange range, cudaStream_t stream);
/// To be called once before: lets the kernel have its shared memory.
cudaError_t prepare(const Machine& machine);

/// Puts a file's tiles in the device's order. `codes`, `block_scales`, `row_scales` as in codec/layout/trellis.h, on
/// the device, of the matrix that `to` describes; data [panels][steps][step_bytes], scales [16 panels].
cudaError_t repack(const uint32_t* codes, const uint8_t* block_scales, const uint16_t* row_scales,
                   const TrellisMatrix& to, uint8_t* data, float* scales, cudaStream_t stream);

}  // namespace upg::cuda
