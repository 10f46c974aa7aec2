// The tokens that can be drawn, found among all logits on the GPU: the likeliest by a histogram of their highest bits,
// and the sum that a draw refers to.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>
#include <string.h>

#include "codec/layout/trellis.h"  // UPG_HOST_DEVICE

namespace upg::cuda {

constexpr uint32_t kSampleBlocks = 64;
constexpr uint32_t kSampleBins = 2048;  // of a histogram: 11 bits

struct Listed {
  int32_t token;
  float logit;
};

struct SampleResult {
  double sums[kSampleBlocks];  // of exp((logit - top) / temperature), in parts
  uint32_t top;                // the largest key: keys are ordered as logits are, NaN's is the highest
  uint32_t listed;
};

/// What one row of logits is looked through for. Pointers are of the device.
struct SampleArgs {
  float* logits;  // [vocab]; those set apart become -infinity
  uint32_t vocab;
  uint32_t count;         // tokens wanted, 1 to vocab
  uint32_t room;          // of `list`, at least count
  float temperature;      // above 0: sums are wanted
  const int32_t* tokens;  // to be set apart [apart_count], each once
  uint32_t apart_count;
  float* apart;    // [apart_count]: their logits
  uint32_t* bins;  // [2][kSampleBins], to work with
  SampleResult* result;
  Listed* list;  // [room]
};

/// Enqueues kSampleLaunches kernels for each kSampleRows rows [n]. The list of each receives, in any order, all tokens
/// of a logit above a threshold and of -infinity none: as many as wanted and those that share 22 highest bits with the
/// last of them, or less than wanted where `room` does not hold these. With NaN or +infinity among the logits only
/// `top` and `apart` mean something.
cudaError_t find_candidates(const SampleArgs* rows, uint32_t n, cudaStream_t stream);
constexpr unsigned kSampleLaunches = 4, kSampleRows = 32;

/// The logit of a key, NaN for NaN's.
UPG_HOST_DEVICE inline float logit_of_key(uint32_t key) {
  const uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

}  // namespace upg::cuda
