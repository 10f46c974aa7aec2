// MdCSR: sparse rows of signed bytes with delta-coded columns; with a prime index per entry, refined below the byte
// step. The stored form is described in codec/layout/mdcsr.h. Encoding is by magnitude, without calibration.
#pragma once

#include "codec/codec.h"
#include "codec/layout/mdcsr.h"

namespace upg {

extern const Codec kMdcsrCodec;          // "mdcsr": parts values, delta_indices, row_pointers, scales
extern const Codec kMdcsrManifoldCodec;  // "mdcsr_manifold": and prime_indices

/// The layout of a matrix that either codec opened. Valid as long as the matrix's layout and stored bytes are.
inline const MdcsrView& mdcsr_view(const Matrix& matrix) { return *static_cast<const MdcsrView*>(matrix.layout.get()); }

/// All weights in float, bit-exact; `out` is [rows, cols].
void mdcsr_to_dense(const MdcsrView& view, float* out);

/// y = W x in double, entry by entry in stored order; x is [cols], y is [rows]. The specification of the fast kernels.
void mdcsr_spmv_ref(const MdcsrView& view, const float* x, double* y);

namespace mdcsr {  // what mdcsr.cc and mdcsr_encode.cc share, and what codecs with a sparse part are made of

/// The view of the parts <prefix>values, <prefix>delta_indices, ..., with every rule of the layout checked; other parts
/// are not looked at. Valid as long as the parts' bytes. Throws Error(kInvalidFile) naming matrix and part.
std::shared_ptr<const MdcsrView> open_view(std::string_view name, std::string_view prefix, bool manifold, uint64_t rows,
                                           uint64_t cols, std::span<const TensorView> parts);

/// out[column] += weight for the row's entries, in float32; other columns keep their bits. out is [cols].
void add_row(const MdcsrView& view, uint64_t row, float* out);

/// A weight scales[row] * value to be stored, refined by a prime index in the manifold form. Value -127 to 127.
struct Entry {
  uint32_t row;
  uint32_t column;
  int8_t value;
  uint16_t prime = 0;
};

/// The parts <prefix>values, <prefix>delta_indices, <prefix>row_pointers, <prefix>scales and, if `manifold`,
/// <prefix>prime_indices of a matrix that has these entries, sorted by row, then column, no place twice; bridges are
/// added. scales is [rows]. Throws Error(kInvalidArgument) for entries or scales that could not be read back, naming
/// the first.
std::vector<EncodedMatrix::Component> build_parts(std::string_view prefix, uint64_t rows, uint64_t cols,
                                                  std::span<const Entry> entries, std::span<const float> scales,
                                                  bool manifold = false);

/// The bytes of what build_parts would return, without prime indices.
uint64_t built_bytes(uint64_t rows, std::span<const Entry> entries);

/// The scale at which int8 values reach `absmax`: a 127th of it, or a little more or less at the ends of float's range.
float row_scale(float absmax);

/// Encodes the round(density * rows * cols) largest weights by magnitude; equal ones are kept first row, first column
/// first. Reads every row up to four times. The bytes do not depend on options.parallel. Throws Error(kInvalidArgument)
/// for a density outside [0, 1], more entries than U32 counts, or a weight that is not finite (naming its position).
EncodedMatrix encode(const Codec& codec, bool manifold, uint64_t rows, uint64_t cols, const RowSource& source,
                     const EncodeOptions& options);
uint64_t stored_bytes(bool manifold, uint64_t rows, uint64_t cols, double density);

}  // namespace mdcsr
}  // namespace upg
