// Encoding to the manifold trellis without calibration data: row scales from the blocks' sizes, a table trained on what
// it encodes (Lloyd's iteration over the paths the trellis chose), then the joint search of codes and scales per tile.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>
#include <tuple>

#include "base/checked.h"
#include "base/error.h"
#include "base/float16.h"
#include "codec/feedback.h"
#include "codec/mdcsr.h"
#include "codec/primes.h"
#include "codec/trellis.h"
#include "codec/trellis_device.h"
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

// Puts the row's largest block at the top of the ladder, unless it is an outlier that would waste the rest.
float choose_row_scale(std::span<const float> row, uint64_t index) {
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
    fail(ErrorCode::kUnsupported, "row {} has weights of about {:.3g}: too large for a bfloat16 row scale", index, rms);
  constexpr double kSigmaAtTop = 2.4;  // the largest level stands for about this many standard deviations
  return bf16_to_float(float_to_bf16(static_cast<float>(std::min(1.1 * std::sqrt(largest), 3.5 * rms) * kSigmaAtTop)));
}

// Columns in the order of the chains, block after block; padding is >= cols.
std::vector<uint32_t> chain_order(uint64_t cols) {
  std::vector<uint32_t> order;
  for (uint64_t b = 0; b < ceil_div(cols, kBlock); ++b)
    for (unsigned i = 0; i < kBlock; ++i)
      order.push_back(static_cast<uint32_t>(b * kBlock + trellis_column(i % kTrellisPlanes, i / kTrellisPlanes)));
  return order;
}

// The power of two that brings a row near 1; 0 for a row of zeros.
float unit_of(float row_scale) { return row_scale > 0 ? std::ldexp(1.0f, -std::ilogb(row_scale)) : 0.0f; }

// Sixteen rows of the source, in chain order and brought near 1 by powers of two: squares of float weights would leave
// the range of float. Rows past the last and padding columns are zero.
struct Panel {
  std::vector<float> original;          // [n][16]
  std::vector<float> target;            // the same, moved by the errors of columns already encoded
  std::array<float, kLanes> row_scale;  // as stored: already rounded to bfloat16
  std::array<float, kLanes> unit;

  void read(uint64_t panel, uint64_t rows, uint64_t cols, std::span<const uint32_t> order, const RowSource& source) {
    original.assign(order.size() * kLanes, 0.0f);
    std::vector<float> row(cols);
    for (unsigned j = 0; j < kLanes; ++j) {
      const uint64_t index = panel * kLanes + j;
      row_scale[j] = 0;
      unit[j] = 0;
      if (index >= rows) continue;
      source(index, row);
      row_scale[j] = choose_row_scale(row, index);
      unit[j] = unit_of(row_scale[j]);
      for (uint64_t k = 0; k < order.size(); ++k)
        if (order[k] < cols) original[k * kLanes + j] = row[order[k]] * unit[j];
    }
    target = original;
  }
};

// Everything that the tiles of one matrix share.
struct TileSource {
  uint64_t cols;
  std::vector<uint32_t> order;
  const Feedback* feedback;  // nullptr: none

  void load(const Panel& panel, uint64_t block, TrellisTile& tile) const {
    for (unsigned j = 0; j < kLanes; ++j) tile.scale[j] = panel.row_scale[j] * panel.unit[j] * kUnit;
    const uint64_t begin = block * kBlock;
    std::memcpy(tile.target, panel.target.data() + begin * kLanes, sizeof tile.target);
    std::memcpy(tile.original, panel.original.data() + begin * kLanes, sizeof tile.original);
    for (unsigned i = 0; i < kBlock; ++i) {
      const float weight = feedback ? feedback->variance[begin + i] : order[begin + i] < cols ? 1.0f : 0.0f;
      for (unsigned j = 0; j < kLanes; ++j) tile.weight[i][j] = weight;
    }
  }
};

// Places that go to the residual plane: those whose weights stand out most from their rows, by what they weigh.
class Outliers {
 public:
  /// As many as a plane of `bytes` holds.
  Outliers(uint64_t rows, uint64_t cols, const TileSource& tiles, const RowSource& source, const EncodeOptions& options)
      : cols_(cols) {
    if (options.residual_bytes == 0 || rows == 0) return;
    constexpr float kOrdinary = 2.0f;  // sizes up to so many times the row's rms are the trellis's business
    std::vector<float> score(rows * cols);
    scales_.resize(rows);
    options.for_each(rows, [&](uint64_t r) {
      std::vector<float> row(cols);
      source(r, row);
      float top = 0;
      double power = 0;
      for (float w : row) {
        top = std::max(top, std::abs(w));
        power += static_cast<double>(w) * w;
      }
      scales_[r] = mdcsr::row_scale(top);
      const float ordinary = kOrdinary * static_cast<float>(std::sqrt(power / static_cast<double>(cols)));
      for (uint64_t c = 0; c < cols; ++c) score[r * cols + c] = std::max(0.0f, std::abs(row[c]) - ordinary);
    });
    if (tiles.feedback) {
      std::vector<float> weight(cols);
      for (uint64_t k = 0; k < tiles.order.size(); ++k)
        if (tiles.order[k] < cols) weight[tiles.order[k]] = std::sqrt(tiles.feedback->variance[k]);
      options.for_each(rows, [&](uint64_t r) {
        for (uint64_t c = 0; c < cols; ++c) score[r * cols + c] *= weight[c];
      });
    }
    std::vector<uint64_t> places;
    for (uint64_t i = 0; i < score.size(); ++i)
      if (score[i] > 0) places.push_back(i);
    std::vector<mdcsr::Entry> entries;
    const uint64_t fixed = mdcsr::built_bytes(rows, entries);
    uint64_t count = options.residual_bytes > fixed ? (options.residual_bytes - fixed) / 2 : 0;
    const auto higher = [&](uint64_t a, uint64_t b) { return score[a] != score[b] ? score[a] > score[b] : a < b; };
    for (;;) {  // bridges cost too: fewer, until all fits
      count = std::min<uint64_t>(count, places.size());
      if (count == 0) return;
      std::nth_element(places.begin(), places.begin() + static_cast<ptrdiff_t>(count - 1), places.end(), higher);
      places_.assign(places.begin(), places.begin() + static_cast<ptrdiff_t>(count));
      std::sort(places_.begin(), places_.end());
      entries.clear();
      for (uint64_t place : places_)
        entries.push_back({static_cast<uint32_t>(place / cols), static_cast<uint32_t>(place % cols), 0});
      const uint64_t bytes = mdcsr::built_bytes(rows, entries);
      if (bytes <= options.residual_bytes) return;
      const uint64_t over = (bytes - options.residual_bytes + 1) / 2;
      count = count > over ? count - over : 0;
      places_.clear();
    }
  }

  bool empty() const { return places_.empty(); }
  bool contains(uint64_t row, uint64_t col) const {
    return col < cols_ && std::binary_search(places_.begin(), places_.end(), row * cols_ + col);
  }
  float scale(uint64_t row) const { return scales_[row]; }
  std::span<const float> scales() const { return scales_; }

 private:
  uint64_t cols_;
  std::vector<uint64_t> places_;  // row * cols + column, ascending
  std::vector<float> scales_;     // of the plane's rows
};

// Least-squares sums for the levels of a table, from tiles and what they were encoded to.
struct TableFit {
  std::array<double, 16> above{};
  std::array<double, 16> below{};

  // Without moments every block counts alike, large rows do not drown the others; with them errors count as they are.
  void add(const TrellisTables& tables, const TrellisTile& tile, bool weighted) {
    const unsigned levels = 1u << tables.bits;
    for (unsigned j = 0; j < kLanes; ++j) {
      const double scale = static_cast<double>(tile.scale[j]) * tables.step[tile.step[j]];
      if (!(scale > 0)) continue;
      const double size = weighted ? 1 : 1 / (scale * scale);
      unsigned state = 0;
      for (unsigned i = kBlock - 3; i < kBlock; ++i) state = trellis_next_state(state, tile.code[i][j]);
      for (unsigned i = 0; i < kBlock; ++i) {
        const bool mirrored = trellis_row(state);
        const unsigned level = tile.code[i][j] ^ trellis_flip(state);
        const double x = mirrored ? -tile.target[i][j] : tile.target[i][j];
        const unsigned h = mirrored ? levels - 1 - level : level;
        above[h] += tile.weight[i][j] * size * x * scale;
        below[h] += tile.weight[i][j] * size * scale * scale;
        state = trellis_next_state(state, tile.code[i][j]);
      }
    }
  }

  void apply(TrellisTables& tables) const {
    const unsigned levels = 1u << tables.bits;
    for (unsigned h = 0; h < levels; ++h)
      if (below[h] > 0) tables.level[0][h] = static_cast<float>(above[h] / below[h]);
    std::sort(tables.level[0], tables.level[0] + levels);
    float top = 0;
    for (unsigned h = 0; h < levels; ++h) top = std::max(top, std::abs(tables.level[0][h]));
    if (!(top > 0)) return start_table(tables);  // nothing but zeros
    for (unsigned h = 0; h < levels; ++h) tables.level[0][h] /= top;
    for (unsigned h = 0; h < levels; ++h) tables.level[1][h] = -tables.level[0][levels - 1 - h];
  }
};

// Lloyd's iteration on tiles spread evenly over the matrix: each level becomes the least-squares fit of what was
// assigned to it, both states together because one table is stored.
void train_table(TrellisTables& tables, const TileSource& tile_source, uint64_t rows, const RowSource& source,
                 const EncodeOptions& options) {
  const uint64_t panels = ceil_div(rows, kLanes);
  const uint64_t blocks = tile_source.order.size() / kBlock;
  if (panels == 0) return;
  const uint64_t sampled_panels = std::min<uint64_t>(panels, 32);
  const uint64_t per_panel = std::min<uint64_t>(blocks, ceil_div(kTrainingTiles, sampled_panels));
  std::vector<TrellisTile> tiles(sampled_panels * per_panel);
  options.for_each(sampled_panels, [&](uint64_t p) {
    Panel panel;
    panel.read(p * panels / sampled_panels, rows, tile_source.cols, tile_source.order, source);
    for (uint64_t b = 0; b < per_panel; ++b) tile_source.load(panel, b * blocks / per_panel, tiles[p * per_panel + b]);
  });
  for (int round = 0; round < kTrainingRounds; ++round) {
    if (options.device) {
      options.device->search(tables, tiles);
    } else {
      options.for_each(tiles.size(), [&](uint64_t i) { search_trellis_tile(tables, tiles[i]); });
    }
    TableFit fit;
    for (const TrellisTile& tile : tiles) fit.add(tables, tile, tile_source.feedback != nullptr);
    fit.apply(tables);
  }
  round_table(tables);
}

// Takes the weight from the places that the residual plane holds.
void clear_outliers(const Outliers& outliers, const TileSource& tiles, uint64_t panel, uint64_t block,
                    TrellisTile& tile) {
  for (unsigned i = 0; i < kBlock; ++i)
    for (unsigned j = 0; j < kLanes; ++j)
      if (outliers.contains(panel * kLanes + j, tiles.order[block * kBlock + i])) tile.weight[i][j] = 0;
}

// What the trellis leaves at those places, to int8; `decoded` then has both.
void add_residual(const Outliers& outliers, const TileSource& tiles, const Panel& panel, uint64_t panel_index,
                  uint64_t block, TrellisTile& tile, std::vector<mdcsr::Entry>& entries) {
  for (unsigned j = 0; j < kLanes; ++j) {
    if (!(panel.unit[j] > 0)) continue;
    for (unsigned i = 0; i < kBlock; ++i) {
      const uint64_t row = panel_index * kLanes + j;
      const uint32_t col = tiles.order[block * kBlock + i];
      if (!outliers.contains(row, col)) continue;
      const float scale = outliers.scale(row) * panel.unit[j];
      const float steps = scale > 0 ? (tile.target[i][j] - tile.decoded[i][j]) / scale : 0.0f;
      const auto value = static_cast<int8_t>(std::lround(std::clamp(steps, -127.0f, 127.0f)));
      tile.decoded[i][j] += scale * static_cast<float>(value);
      entries.push_back({static_cast<uint32_t>(row), col, value});
    }
  }
}

// All panels at once, on the device of the options. Returns the weighted error.
double encode_on_device(const TrellisTables& tables, const TileSource& tiles, const Outliers& outliers, uint64_t rows,
                        const RowSource& source, const EncodeOptions& options, uint32_t* codes, uint8_t* block_scales,
                        uint16_t* row_scales, std::vector<std::vector<mdcsr::Entry>>& residual) {
  const uint64_t cols = tiles.cols;
  const std::span<float> weights(options.device->host_memory(rows * cols), rows * cols);
  std::vector<float> unit(rows), scale(rows), importance, residual_scale;
  options.for_each(rows, [&](uint64_t r) {
    const std::span<float> row = weights.subspan(r * cols, cols);
    source(r, row);
    const float row_scale = choose_row_scale(row, r);
    row_scales[r] = float_to_bf16(row_scale);
    unit[r] = unit_of(row_scale);
    scale[r] = row_scale * unit[r] * kUnit;
  });
  std::vector<int8_t> values;
  if (!outliers.empty()) {
    std::vector<float> weight(cols, 1.0f);
    for (uint64_t k = 0; k < tiles.order.size(); ++k)
      if (tiles.feedback && tiles.order[k] < cols) weight[tiles.order[k]] = tiles.feedback->variance[k];
    importance.resize(rows * cols);
    residual_scale.resize(rows);
    values.resize(rows * cols);
    options.for_each(rows, [&](uint64_t r) {
      residual_scale[r] = outliers.scale(r) * unit[r];
      for (uint64_t c = 0; c < cols; ++c) importance[r * cols + c] = outliers.contains(r, c) ? 0.0f : weight[c];
    });
  }
  TrellisWork work{
      rows,       cols,           &tables, tiles.order,  weights,       unit, scale, tiles.feedback != nullptr,
      importance, residual_scale, codes,   block_scales, values.data(), 0};
  options.device->encode(work);
  if (!outliers.empty())
    options.for_each(residual.size(), [&](uint64_t p) {
      for (uint64_t r = p * kLanes; r < std::min((p + 1) * kLanes, rows); ++r)
        for (uint64_t c = 0; c < cols; ++c)
          if (unit[r] > 0 && outliers.contains(r, c))
            residual[p].push_back({static_cast<uint32_t>(r), static_cast<uint32_t>(c), values[r * cols + c]});
    });
  return work.weighted_error;
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
  TileSource tile_source{cols, chain_order(cols), nullptr};
  Feedback feedback;
  if (options.moments) {
    if (options.device) {
      feedback.n = tile_source.order.size();
      feedback.variance = options.device->factor(*options.moments, tile_source.order, options.damping);
    } else {
      feedback = factor_moments(*options.moments, tile_source.order, options.damping,
                                [&](uint64_t n, const auto& f) { options.for_each(n, f); });
    }
    tile_source.feedback = &feedback;
  }
  const std::array<uint8_t, kTrellisSteps> steps = ladder();
  TrellisTables tables;
  tables.bits = bits;
  for (unsigned n = 0; n < kTrellisSteps; ++n) tables.step[n] = static_cast<float>(steps[n]) / 255.0f;
  start_table(tables);
  train_table(tables, tile_source, rows, source, options);

  const uint64_t tile_bytes = uint64_t{64} * bits;
  EncodedMatrix encoded{&codec, rows, cols, {}, 0};
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

  const Outliers outliers(rows, cols, tile_source, source, options);
  std::vector<std::vector<mdcsr::Entry>> residual(panels);
  std::vector<double> panel_error(panels);
  auto encode_panel = [&](uint64_t p) {
    Panel panel;
    TrellisTile tile;
    float inside[kBlock][kBlock] = {};
    panel.read(p, rows, cols, tile_source.order, source);
    for (unsigned j = 0; j < kLanes && p * kLanes + j < rows; ++j)
      row_scales[p * kLanes + j] = float_to_bf16(panel.row_scale[j]);
    for (uint64_t b = 0; b < blocks; ++b) {
      tile_source.load(panel, b, tile);
      if (options.moments) {
        for (unsigned k = 0; k < kBlock; ++k)
          std::memcpy(inside[k], feedback.factor.data() + (b * kBlock + k) * feedback.n + b * kBlock,
                      k * sizeof(float));
        tile.feedback = inside;
      }
      if (!outliers.empty()) clear_outliers(outliers, tile_source, p, b, tile);
      search_trellis_tile(tables, tile);
      if (!outliers.empty()) add_residual(outliers, tile_source, panel, p, b, tile, residual[p]);
      const uint64_t at = p * blocks + b;
      pack_tile(tile, bits, codes + at * bits * kLanes, block_scales + at * kTrellisScaleBytes);
      if (!options.moments) continue;
      float errors[kBlock][kLanes];
      for (unsigned i = 0; i < kBlock; ++i)
        for (unsigned j = 0; j < kLanes; ++j)
          errors[i][j] = tile_source.order[b * kBlock + i] < cols ? tile.original[i][j] - tile.decoded[i][j] : 0.0f;
      feed_errors(feedback, b * kBlock, kBlock, errors[0], panel.target.data());
      for (unsigned j = 0; j < kLanes; ++j)
        if (panel.unit[j] > 0) panel_error[p] += tile.error[j] / (panel.unit[j] * panel.unit[j]);
    }
  };
  if (options.device) {
    encoded.weighted_error = encode_on_device(tables, tile_source, outliers, rows, source, options, codes, block_scales,
                                              row_scales, residual);
  } else {
    options.for_each(panels, encode_panel);
    for (double error : panel_error) encoded.weighted_error += error;
  }
  if (!outliers.empty()) {
    std::vector<mdcsr::Entry> entries;
    for (auto& some : residual) {
      std::sort(some.begin(), some.end(),
                [](const auto& a, const auto& b) { return std::tie(a.row, a.column) < std::tie(b.row, b.column); });
      entries.insert(entries.end(), some.begin(), some.end());
    }
    for (auto& part : mdcsr::build_parts(kTrellisResidual, rows, cols, entries, outliers.scales()))
      parts.push_back(std::move(part));
  }
  return encoded;
}

}  // namespace upg
