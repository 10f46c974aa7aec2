#include "codec/codec_table.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "codec/dense.h"
#include "codec/int8.h"
#include "codec/mdcsr.h"
#include "codec/trellis.h"

namespace upg {
namespace {

constexpr const Codec* kCodecs[] = {
    &kTrellis2Codec,      &kTrellis3Codec, &kTrellis4Codec, &kInt8Codec, &kMdcsrCodec,
    &kMdcsrManifoldCodec, &kBf16Codec,     &kF16Codec,      &kF32Codec,
};

}  // namespace

std::span<const Codec* const> codecs() { return kCodecs; }

const Codec& find_codec(std::string_view id) {
  for (const Codec* codec : kCodecs)
    if (codec->id == id) return *codec;
  std::vector<std::string_view> known;
  for (const Codec* codec : kCodecs) known.push_back(codec->id);
  fail(ErrorCode::kUnsupported, "codec \"{}\" is not known; known codecs: {}", id, fmt::join(known, ", "));
}

}  // namespace upg
