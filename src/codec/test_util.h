// How tests print a codec that is their parameter: its id, where gtest alone would print an address.
#pragma once

#include <ostream>

#include "codec/codec.h"

namespace upg {

inline void PrintTo(const Codec* codec, std::ostream* out) { *out << codec->id; }

}  // namespace upg
