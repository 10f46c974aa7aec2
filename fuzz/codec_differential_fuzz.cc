// Bytes as float weights, through every codec: encoded, opened, decoded, unpacked and multiplied by every kernel that
// runs here. What an encoder writes must open, in the bytes it announced, and all kernels agree.
#include "codec/codec_table.h"
#include "kernel_check.h"
#include "upg/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  upg::fuzz::Input input(data, size);
  const auto& codec = *upg::codecs()[input.number<uint8_t>() % upg::codecs().size()];
  const double density = input.number<uint8_t>() / 255.0;
  const uint64_t rows = input.number<uint8_t>() % 20;
  const uint64_t cols = rows == 0 ? 0 : std::min<uint64_t>(input.left() / (4 * rows), 300);
  std::vector<float> weights(rows * cols), x(cols);
  for (float& weight : weights) {
    weight = input.number<float>();
    if (!std::isfinite(weight)) weight = 1.0f;  // callers promise finite weights
  }
  for (float& value : x) value = static_cast<float>(input.number<int8_t>());
  const upg::RowSource source = [&](uint64_t row, std::span<float> out) {
    std::copy_n(weights.begin() + static_cast<ptrdiff_t>(row * cols), cols, out.begin());
  };
  upg::EncodedMatrix encoded;
  try {
    encoded = codec.encode(rows, cols, source, upg::EncodeOptions{density, {}});
  } catch (const upg::Error&) {
    return 0;  // weights beyond the codec's range
  }
  if (!codec.id.starts_with("mdcsr")) REQUIRE(encoded.bytes() == codec.stored_bytes(rows, cols, density));
  try {
    const upg::Matrix matrix = upg::open_encoded(encoded);
    const std::vector<float> dense = upg::fuzz::decode(matrix);
    upg::fuzz::check_unpack(matrix, dense);
    upg::fuzz::check_products(matrix, dense, x);
  } catch (const upg::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    __builtin_trap();  // what the encoder writes must open
  }
  return 0;
}
