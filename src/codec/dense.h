// The identity codecs: weights kept as bf16, f16 or f32. An uncompressed checkpoint is a model whose matrices use
// these.
#pragma once

#include "codec/codec.h"
#include "codec/layout/dense.h"

namespace upg {

extern const Codec kBf16Codec;
extern const Codec kF16Codec;
extern const Codec kF32Codec;

inline const DenseView& dense_view(const Matrix& matrix) { return *static_cast<const DenseView*>(matrix.layout.get()); }

/// The dense codec that stores this element type; nullptr where there is none.
const Codec* dense_codec(DType dtype);

}  // namespace upg
