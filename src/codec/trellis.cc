// Reading the manifold trellis: validation and the scalar decode that defines it. Encoding is in trellis_encode.cc.
#include "codec/trellis.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "base/float16.h"
#include "codec/mdcsr.h"
#include "codec/primes.h"

namespace upg {
namespace {

// Row scales outside this range would make 2^-15 * step * level * row_scale inexact (subnormal) or infinite.
constexpr float kMinRowScale = 0x1p-100f;
constexpr float kMaxRowScale = 0x1p+100f;

struct TrellisLayout {
  TrellisView view{};
  std::shared_ptr<const MdcsrView> residual;
};

uint64_t trellis_bytes(unsigned bits, uint64_t rows, uint64_t cols) {
  const uint64_t tiles = ceil_div(rows, kTrellisPanelRows) * ceil_div(cols, kTrellisBlockCols);
  return tiles * (64 * bits + kTrellisScaleBytes) + 2 * rows + kTrellisSteps + (uint64_t{2} << bits);
}

Matrix open_trellis(const Codec& codec, unsigned bits, std::string_view name, uint64_t rows, uint64_t cols,
                    std::span<const TensorView> parts) {
  const uint64_t panels = ceil_div(rows, kTrellisPanelRows);
  const uint64_t blocks = ceil_div(cols, kTrellisBlockCols);
  const TensorView& codes =
      require_part(name, parts, "codes", DType::kU32, std::array<uint64_t, 4>{panels, blocks, bits, 16});
  const TensorView& block_scales =
      require_part(name, parts, "block_scales", DType::kU8, std::array<uint64_t, 3>{panels, blocks, 8});
  const TensorView& row_scales = require_part(name, parts, "row_scales", DType::kBF16, std::array<uint64_t, 1>{rows});
  const TensorView& steps = require_part(name, parts, "steps", DType::kU8, std::array<uint64_t, 1>{kTrellisSteps});
  const TensorView& codebook =
      require_part(name, parts, "codebook", DType::kU16, std::array<uint64_t, 1>{uint64_t{1} << bits});
  auto layout = std::make_shared<TrellisLayout>();
  const auto of_residual = [](const TensorView& part) { return part.name.starts_with(kTrellisResidual); };
  if (std::any_of(parts.begin(), parts.end(), of_residual))
    layout->residual = mdcsr::open_view(name, kTrellisResidual, false, rows, cols, parts);
  // All parts looked for are there: more of them are unknown or come twice.
  if (const size_t expected = layout->residual ? 9 : 5; parts.size() != expected)
    fail(ErrorCode::kInvalidFile, "{}: has {} parts, {}{} has {}", name, parts.size(), codec.id,
         layout->residual ? " with a residual" : "", expected);
  require_aligned(name, codes);
  require_aligned(name, row_scales);

  TrellisView* view = &layout->view;
  view->rows = rows;
  view->cols = cols;
  view->panels = panels;
  view->blocks = blocks;
  view->bits = bits;
  view->codes = codes.as<uint32_t>();
  view->block_scales = block_scales.as<uint8_t>();
  view->row_scales = row_scales.as<uint16_t>();
  for (uint64_t row = 0; row < rows; ++row) {
    const float scale = bf16_to_float(view->row_scales[row]);
    if (scale != 0 && !(scale >= kMinRowScale && scale <= kMaxRowScale))
      fail(ErrorCode::kInvalidFile, "{}.row_scales: row {} has {}, must be 0 or from 2^-100 to 2^100", name, row,
           scale);
  }
  std::memcpy(view->steps, steps.data.data(), kTrellisSteps);
  std::memset(view->table, 0, sizeof view->table);
  const unsigned levels = 1u << bits;
  for (unsigned h = 0; h < levels; ++h) {
    uint16_t index;
    std::memcpy(&index, codebook.data.data() + 2 * h, 2);
    if (index >= kPrimeCount)
      fail(ErrorCode::kInvalidFile, "{}.codebook: entry {} is prime index {}, must be below {}", name, h, index,
           +kPrimeCount);
    view->table[0][h] = manifold_int8(index);
  }
  for (unsigned h = 0; h < levels; ++h) view->table[1][h] = static_cast<int8_t>(-view->table[0][levels - 1 - h]);
  view->residual = layout->residual.get();
  return Matrix{&codec, rows, cols, std::shared_ptr<const void>(layout, view)};
}

void decode_row(const Matrix& matrix, uint64_t row, float* out) {
  const TrellisView& w = trellis_view(matrix);
  const unsigned lane = static_cast<unsigned>(row % kTrellisPanelRows);
  const float row_scale = bf16_to_float(w.row_scales[row]) * 0x1p-15f;
  for (uint64_t block = 0; block < w.blocks; ++block) {
    const uint64_t tile = row / kTrellisPanelRows * w.blocks + block;
    const uint32_t* words = w.codes + tile * w.bits * 16 + lane;
    const float scale = row_scale * w.steps[trellis_step_index(w.block_scales + tile * kTrellisScaleBytes, lane)];
    unsigned state = trellis_first_state(words, 16, w.bits);
    for (unsigned nibble = 0; nibble < 8; ++nibble) {
      for (unsigned plane = 0; plane < kTrellisPlanes; ++plane) {
        const unsigned code = trellis_code(words, 16, w.bits, plane, nibble);
        const uint64_t col = block * kTrellisBlockCols + trellis_column(plane, nibble);
        if (col < w.cols) out[col] = scale * w.table[trellis_row(state)][code ^ trellis_flip(state)];
        state = trellis_next_state(state, code);
      }
    }
  }
  if (w.residual != nullptr) mdcsr::add_row(*w.residual, row, out);
}

}  // namespace

#define UPG_TRELLIS_CODEC(BITS, SUMMARY)                                                           \
  const Codec kTrellis##BITS##Codec = {                                                            \
      "trellis" #BITS,                                                                             \
      2,                                                                                           \
      "3.0",                                                                                       \
      SUMMARY,                                                                                     \
      "q8",                                                                                        \
      [](uint64_t rows, uint64_t cols, double) { return trellis_bytes(BITS, rows, cols); },        \
      [](uint64_t rows, uint64_t cols, const RowSource& source, const EncodeOptions& options) {    \
        return encode_trellis(kTrellis##BITS##Codec, BITS, rows, cols, source, options);           \
      },                                                                                           \
      [](std::string_view name, uint64_t rows, uint64_t cols, std::span<const TensorView> parts) { \
        return open_trellis(kTrellis##BITS##Codec, BITS, name, rows, cols, parts);                 \
      },                                                                                           \
      decode_row,                                                                                  \
      true,                                                                                        \
  };

UPG_TRELLIS_CODEC(2, "manifold trellis, 2.125 bits a weight")
UPG_TRELLIS_CODEC(3, "manifold trellis, 3.125 bits a weight")
UPG_TRELLIS_CODEC(4, "manifold trellis, 4.125 bits a weight")

}  // namespace upg
