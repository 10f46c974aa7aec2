// THE list of codecs. A new codec is a layout header, a source, a golden file, and one row in codec_table.cc.
#pragma once

#include <span>
#include <string_view>

#include "codec/codec.h"

namespace upg {

std::span<const Codec* const> codecs();

/// Throws Error(kUnsupported) that names the codec and lists the known ones.
const Codec& find_codec(std::string_view id);

}  // namespace upg
