// Any bytes as a UPG 1.0 file: a pickle, a file of torch.save or a ZIP archive. Only upg::Error may escape, and what
// loads must be valid in its codec.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "convert/legacy_model.h"
#include "upg/error.h"

namespace {

// An error of loading is the file's; one of opening what was loaded is ours.
void load(const upg::LegacyModel& model, size_t index) {
  upg::StoredWeight weight;
  try {
    weight = model.load(index);
  } catch (const upg::Error&) {
    return;
  }
  if (weight.shape.size() != 2) return;
  std::vector<upg::TensorView> parts;
  for (const auto& part : weight.parts) parts.push_back({part.suffix, part.dtype, part.shape, part.data});
  try {
    const upg::Matrix matrix = weight.codec->open("fuzz", weight.shape[0], weight.shape[1], parts);
    if (matrix.cols > (1 << 20)) return;
    std::vector<float> row(matrix.cols);
    for (uint64_t r = 0; r < matrix.rows && r < 8; ++r) weight.codec->decode_row(matrix, r, row.data());
    upg::smaller_exact_form(std::move(weight), "fuzz");
  } catch (const upg::Error&) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const upg::LegacyModel model({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
    for (size_t i = 0; i < model.items().size() && i < 16; ++i) load(model, i);
  } catch (const upg::Error&) {
  }
  return 0;
}
