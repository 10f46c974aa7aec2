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

namespace mdcsr {  // what mdcsr.cc and mdcsr_encode.cc share

/// Encodes the round(density * rows * cols) largest weights by magnitude; equal ones are kept first row, first column
/// first. Reads every row up to four times. The bytes do not depend on options.parallel. Throws Error(kInvalidArgument)
/// for a density outside [0, 1], more entries than U32 counts, or a weight that is not finite (naming its position).
EncodedMatrix encode(const Codec& codec, bool manifold, uint64_t rows, uint64_t cols, const RowSource& source,
                     const EncodeOptions& options);
uint64_t stored_bytes(bool manifold, uint64_t rows, uint64_t cols, double density);

}  // namespace mdcsr
}  // namespace upg
