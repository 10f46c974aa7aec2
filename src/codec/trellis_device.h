// What a device can do of the trellis encoder's work: codec/trellis_encode.cc drives it, src/cuda has one.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "codec/codec.h"

namespace upg {

struct TrellisTables;  // codec/trellis_search.h
struct TrellisTile;

/// A matrix to be encoded with tables that are trained already. Results are as encode_trellis() stores them.
struct TrellisWork {
  uint64_t rows, cols;
  const TrellisTables* tables;
  std::span<const uint32_t> order;        // columns in the order of the chains; >= cols: padding
  std::span<const float> weights;         // [rows, cols]
  std::span<const float> unit;            // [rows]: powers of two that bring a row near 1
  std::span<const float> scale;           // [rows]: of the rows so multiplied
  bool feedback;                          // by what factor() was given last
  std::span<const float> importance;      // [rows, cols], 0 at the residual's places; empty: there is no residual
  std::span<const float> residual_scale;  // [rows], of the rows as multiplied; with `importance`

  uint32_t* codes;        // [panels][blocks][bits][16]
  uint8_t* block_scales;  // [panels][blocks][8]
  int8_t* residual;       // [rows, cols]: what belongs to the residual's places; other places mean nothing
  double weighted_error;  // as EncodedMatrix has it, with feedback
};

class TrellisDevice {
 public:
  virtual ~TrellisDevice() = default;
  /// Factors moments as factor_moments() of codec/feedback.h does, and keeps the factor for encode(). Returns D.
  virtual std::vector<float> factor(const Moments& moments, std::span<const uint32_t> order, double damping) = 0;
  /// search_trellis_tile() of each, without feedback: fills codes and steps.
  virtual void search(const TrellisTables& tables, std::span<TrellisTile> tiles) = 0;
  virtual void encode(TrellisWork& work) = 0;
  /// At least n floats of host memory, kept from call to call: fresh memory of such sizes costs more than the work.
  virtual float* host_memory(uint64_t n) = 0;
};

}  // namespace upg
