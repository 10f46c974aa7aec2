// Encoding to the manifold trellis without calibration data: row scales from the blocks' sizes, a table trained on what
// it encodes (Lloyd's iteration over the paths the trellis chose), then the joint search of codes and scales per tile.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "base/float16.h"
#include "codec/primes.h"
#include "codec/trellis.h"
#include "codec/trellis_search.h"

namespace upg {
namespace {

constexpr unsigned kTrainingTiles = 768;
constexpr int kTrainingRounds = 10;
// The ladder spans 6.3 to 1: blocks of 32 weights differ by about that much within a row.
constexpr double kLadderSpan = 6.2857;
constexpr float kUnit = 255.0f * 127.0f * 0x1p-15f;  // weight of row scale 1 at the highest step and level

// Levels in units of the largest, T[0] of the symmetric pair. Quantiles of a normal distribution are close enough to
// start from: training moves them.
void start_table(TrellisTables& tables) {
  const unsigned levels = 1u << tables.bits;
  const unsigned all = 2 * levels;  // both states' levels interleave: T[1][h] < T[0][h] < T[1][h + 1]
  for (unsigned h = 0; h < levels; ++h) {
    const double p = (2 * h + 1 + 0.5) / all;
    // Quantile of the logistic distribution, which is close to the normal's and has a closed form.
    tables.level[0][h] = static_cast<float>(std::log(p / (1 - p)));
  }
  const float top = std::max(std::abs(tables.level[0][0]), std::abs(tables.level[0][levels - 1]));
  for (unsigned h = 0; h < levels; ++h) tables.level[0][h] /= top;
  for (unsigned h = 0; h < levels; ++h) tables.level[1][h] = -tables.level[0][levels - 1 - h];
}

// What the file will hold: int8 levels, the largest exactly 127.
void round_table(TrellisTables& tables) {
  const unsigned levels = 1u << tables.bits;
  float top = 0;
  for (unsigned h = 0; h < levels; ++h) top = std::max(top, std::abs(tables.level[0][h]));
  for (unsigned h = 0; h < levels; ++h) tables.level[0][h] = std::round(tables.level[0][h] / top * 127.0f) / 127.0f;
  for (unsigned h = 0; h < levels; ++h) tables.level[1][h] = -tables.level[0][levels - 1 - h];
}

std::array<uint8_t, kTrellisSteps> ladder() {
  std::array<uint8_t, kTrellisSteps> steps{};
  for (unsigned n = 0; n < kTrellisSteps; ++n)
    steps[n] = static_cast<uint8_t>(std::lround(255.0 * std::pow(kLadderSpan, (static_cast<double>(n) - 15) / 15)));
  return steps;
}

// Sixteen rows of the source, rows past the last all zero. values [16][cols].
struct Panel {
  std::vector<float> values;
  std::array<float, kLanes> row_scale{};  // as stored: already rounded to bfloat16

  void read(uint64_t panel, uint64_t rows, uint64_t cols, const RowSource& source) {
    values.assign(kLanes * cols, 0.0f);
    for (unsigned j = 0; j < kLanes; ++j) {
      const uint64_t row = panel * kLanes + j;
      row_scale[j] = 0;
      if (row >= rows) continue;
      const std::span<float> out(values.data() + j * cols, cols);
      source(row, out);
      row_scale[j] = choose_row_scale(out, row);
    }
  }

  // Puts the row's largest block at the top of the ladder, unless it is an outlier that would waste the rest.
  static float choose_row_scale(std::span<const float> row, uint64_t index) {
    double power = 0;
    double largest = 0;
    for (uint64_t begin = 0; begin < row.size(); begin += kBlock) {
      const uint64_t end = std::min<uint64_t>(begin + kBlock, row.size());
      double block = 0;
      for (uint64_t c = begin; c < end; ++c) block += static_cast<double>(row[c]) * row[c];
      power += block;
      largest = std::max(largest, block / static_cast<double>(end - begin));
    }
    const double rms = std::sqrt(power / static_cast<double>(row.size()));
    if (!(rms >= 0x1p-90)) return 0;
    if (!(rms <= 0x1p90))
      fail(ErrorCode::kUnsupported, "row {} has weights of about {:.3g}: too large for a bfloat16 row scale", index,
           rms);
    constexpr double kSigmaAtTop = 2.4;  // the largest level stands for about this many standard deviations
    return bf16_to_float(
        float_to_bf16(static_cast<float>(std::min(1.1 * std::sqrt(largest), 3.5 * rms) * kSigmaAtTop)));
  }

  // Targets of one tile in chain order, rows brought near 1 by powers of two: squares of float weights would leave the
  // range of float.
  void load(uint64_t block, uint64_t cols, TrellisTile& tile) const {
    float unit[kLanes];
    for (unsigned j = 0; j < kLanes; ++j) {
      unit[j] = row_scale[j] > 0 ? std::ldexp(1.0f, -std::ilogb(row_scale[j])) : 0.0f;
      tile.scale[j] = row_scale[j] * unit[j] * kUnit;
    }
    for (unsigned nibble = 0; nibble < 8; ++nibble) {
      for (unsigned plane = 0; plane < kTrellisPlanes; ++plane) {
        const unsigned i = 4 * nibble + plane;
        const uint64_t col = block * kBlock + trellis_column(plane, nibble);
        tile.weight[i] = col < cols ? 1.0f : 0.0f;
        for (unsigned j = 0; j < kLanes; ++j) tile.target[i][j] = col < cols ? values[j * cols + col] * unit[j] : 0.0f;
      }
    }
  }
};

// Tiles spread evenly over the matrix.
std::vector<TrellisTile> sample_tiles(uint64_t rows, uint64_t cols, const RowSource& source) {
  const uint64_t panels = ceil_div(rows, kLanes);
  const uint64_t blocks = ceil_div(cols, kBlock);
  if (panels == 0) return {};
  const uint64_t sampled_panels = std::min<uint64_t>(panels, 32);
  const uint64_t per_panel = std::min<uint64_t>(blocks, ceil_div(kTrainingTiles, sampled_panels));
  std::vector<TrellisTile> tiles;
  tiles.reserve(sampled_panels * per_panel);
  Panel panel;
  for (uint64_t p = 0; p < sampled_panels; ++p) {
    panel.read(p * panels / sampled_panels, rows, cols, source);
    for (uint64_t b = 0; b < per_panel; ++b) panel.load(b * blocks / per_panel, cols, tiles.emplace_back());
  }
  return tiles;
}

// Lloyd's iteration: each level becomes the least-squares fit of what was assigned to it, both states together because
// one table is stored.
void train_table(TrellisTables& tables, std::vector<TrellisTile>& tiles, const EncodeOptions& options) {
  const unsigned levels = 1u << tables.bits;
  for (int round = 0; round < kTrainingRounds; ++round) {
    std::array<double, 16> above{};
    std::array<double, 16> below{};
    options.for_each(tiles.size(), [&](uint64_t i) { search_trellis_tile(tables, tiles[i]); });
    for (const TrellisTile& tile : tiles) {
      for (unsigned j = 0; j < kLanes; ++j) {
        const double scale = static_cast<double>(tile.scale[j]) * tables.step[tile.step[j]];
        if (!(scale > 0)) continue;
        const double size = 1 / (scale * scale);  // every block counts alike, large rows do not drown the others
        unsigned previous = tile.code[kBlock - 1][j];
        for (unsigned i = 0; i < kBlock; ++i) {
          const unsigned code = tile.code[i][j];
          const bool mirrored = previous & 1;
          const double x = mirrored ? -tile.target[i][j] : tile.target[i][j];
          const unsigned h = mirrored ? levels - 1 - code : code;
          above[h] += tile.weight[i] * size * x * scale;
          below[h] += tile.weight[i] * size * scale * scale;
          previous = code;
        }
      }
    }
    for (unsigned h = 0; h < levels; ++h)
      if (below[h] > 0) tables.level[0][h] = static_cast<float>(above[h] / below[h]);
    std::sort(tables.level[0], tables.level[0] + levels);
    float top = 0;
    for (unsigned h = 0; h < levels; ++h) top = std::max(top, std::abs(tables.level[0][h]));
    if (!(top > 0)) {  // nothing but zeros
      start_table(tables);
      break;
    }
    for (unsigned h = 0; h < levels; ++h) tables.level[0][h] /= top;
    for (unsigned h = 0; h < levels; ++h) tables.level[1][h] = -tables.level[0][levels - 1 - h];
  }
  round_table(tables);
}

// Codes of one tile into its words; the inverse of trellis_code().
void pack_tile(const TrellisTile& tile, unsigned bits, uint32_t* words, uint8_t* scales) {
  std::memset(words, 0, bits * kLanes * sizeof *words);
  std::memset(scales, 0, kTrellisScaleBytes);
  for (unsigned j = 0; j < kLanes; ++j) {
    for (unsigned i = 0; i < kBlock; ++i) {
      const unsigned shift = 4 * (i / 4);
      const unsigned plane = i % 4;
      const uint32_t code = tile.code[i][j];
      if (bits == 2) {
        words[(plane >> 1) * kLanes + j] |= code << (shift + 2 * (plane & 1));
      } else if (bits == 4 || plane < 3) {
        words[plane * kLanes + j] |= code << shift;
      } else {
        for (unsigned b = 0; b < 3; ++b) words[b * kLanes + j] |= ((code >> b) & 1u) << (shift + 3);
      }
    }
    scales[j & 7] = static_cast<uint8_t>(scales[j & 7] | (tile.step[j] << (4 * (j >> 3))));
  }
}

}  // namespace

EncodedMatrix encode_trellis(const Codec& codec, unsigned bits, uint64_t rows, uint64_t cols, const RowSource& source,
                             const EncodeOptions& options) {
  const uint64_t panels = ceil_div(rows, kLanes);
  const uint64_t blocks = ceil_div(cols, kBlock);
  const std::array<uint8_t, kTrellisSteps> steps = ladder();
  TrellisTables tables;
  tables.bits = bits;
  for (unsigned n = 0; n < kTrellisSteps; ++n) tables.step[n] = static_cast<float>(steps[n]) / 255.0f;
  start_table(tables);
  std::vector<TrellisTile> samples = sample_tiles(rows, cols, source);
  train_table(tables, samples, options);

  const uint64_t tile_bytes = uint64_t{64} * bits;
  EncodedMatrix encoded{&codec, rows, cols, {}};
  auto& parts = encoded.components;
  parts.push_back(
      {"codes", DType::kU32, {panels, blocks, bits, 16}, std::vector<std::byte>(panels * blocks * tile_bytes)});
  parts.push_back(
      {"block_scales", DType::kU8, {panels, blocks, 8}, std::vector<std::byte>(panels * blocks * kTrellisScaleBytes)});
  parts.push_back({"row_scales", DType::kBF16, {rows}, std::vector<std::byte>(rows * 2)});
  parts.push_back({"steps", DType::kU8, {kTrellisSteps}, std::vector<std::byte>(kTrellisSteps)});
  parts.push_back({"codebook", DType::kU16, {uint64_t{1} << bits}, std::vector<std::byte>(uint64_t{2} << bits)});

  auto* codes = reinterpret_cast<uint32_t*>(parts[0].data.data());
  auto* block_scales = reinterpret_cast<uint8_t*>(parts[1].data.data());
  auto* row_scales = reinterpret_cast<uint16_t*>(parts[2].data.data());
  std::memcpy(parts[3].data.data(), steps.data(), kTrellisSteps);
  for (unsigned h = 0; h < (1u << bits); ++h) {
    const auto level = static_cast<int8_t>(std::lround(tables.level[0][h] * 127.0f));
    const uint16_t index = int8_to_prime_index(level);
    std::memcpy(parts[4].data.data() + 2 * h, &index, 2);
  }

  auto encode_panel = [&](uint64_t p) {
    Panel panel;
    TrellisTile tile;
    panel.read(p, rows, cols, source);
    for (unsigned j = 0; j < kLanes && p * kLanes + j < rows; ++j)
      row_scales[p * kLanes + j] = float_to_bf16(panel.row_scale[j]);
    for (uint64_t b = 0; b < blocks; ++b) {
      panel.load(b, cols, tile);
      search_trellis_tile(tables, tile);
      const uint64_t at = p * blocks + b;
      pack_tile(tile, bits, codes + at * bits * kLanes, block_scales + at * kTrellisScaleBytes);
    }
  };
  options.for_each(panels, encode_panel);
  return encoded;
}

}  // namespace upg
