// Int8 weights with a float scale for each row: nearly lossless, 8 bits a weight. Bytes: layout/int8.h.
#pragma once

#include "codec/codec.h"
#include "codec/layout/int8.h"

namespace upg {

extern const Codec kInt8Codec;

inline const Int8View& int8_view(const Matrix& matrix) { return *static_cast<const Int8View*>(matrix.layout.get()); }

}  // namespace upg
