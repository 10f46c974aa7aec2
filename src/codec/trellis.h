// The manifold trellis codec: 2, 3 and 4 bits a weight plus 1/8 bit of block scale, and where the matrix has them
// sparse int8 residuals on top. Meaning and bytes: layout/trellis.h.
#pragma once

#include "codec/codec.h"
#include "codec/layout/trellis.h"

namespace upg {

extern const Codec kTrellis2Codec;
extern const Codec kTrellis3Codec;
extern const Codec kTrellis4Codec;

/// What the suffixes of the residual's parts begin with: append mdcsr::build_parts(kTrellisResidual, ...) to the
/// others.
inline constexpr std::string_view kTrellisResidual = "residual_";

inline const TrellisView& trellis_view(const Matrix& matrix) {
  return *static_cast<const TrellisView*>(matrix.layout.get());
}

/// trellis_encode.cc. `bits` is 2, 3 or 4. The same input gives the same bytes, whatever runs in parallel.
EncodedMatrix encode_trellis(const Codec& codec, unsigned bits, uint64_t rows, uint64_t cols, const RowSource& source,
                             const EncodeOptions& options);

}  // namespace upg
