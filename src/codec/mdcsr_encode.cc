// MdCSR encoding: exact selection of the largest weights by radix histograms over a row source, then rounding; it holds
// histograms and the output, never the matrix. And the stored form of entries that somebody else selected.
#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>

#include "base/checked.h"
#include "base/error.h"
#include "codec/mdcsr.h"
#include "codec/primes.h"

namespace upg::mdcsr {
namespace {

// Floats of one sign sort like their bits, so |w| is compared as a 31-bit integer.
uint32_t magnitude_key(float weight) { return std::bit_cast<uint32_t>(weight) & 0x7fffffffu; }
constexpr uint32_t kInfinityKey = 0x7f800000u;
constexpr uint32_t kLowBits = 15;
constexpr uint64_t kBlockWeights = uint64_t{1} << 20;  // a parallel task's size: amortises its histogram

// Which weights to keep: keys above `threshold`, and the first `ties` of those equal to it.
struct Selection {
  uint64_t threshold = uint64_t{1} << 31;  // above every key: nothing
  uint64_t ties = 0;
  bool all_ties = true;
};

struct Entries {
  std::vector<int8_t> values;
  std::vector<uint8_t> deltas;
  std::vector<uint16_t> primes;
};

// Entries that bring the column within one delta of an entry `gap` columns on.
uint64_t bridges(uint64_t gap) { return gap == 0 ? 0 : (gap - 1) / kSkipDelta; }

void check_entry_count(double entries) {
  if (entries > static_cast<double>(kMdcsrMaxEntries))
    fail(ErrorCode::kInvalidArgument,
         "the matrix would have {:.0f} MdCSR entries, but its 32-bit row pointers allow {}; lower the density or "
         "split it",
         entries, kMdcsrMaxEntries);
}

template <typename T>
EncodedMatrix::Component component(std::string suffix, DType dtype, std::span<const T> data) {
  EncodedMatrix::Component result{std::move(suffix), dtype, {data.size()}, {}};
  result.data.resize(data.size_bytes());
  if (!data.empty()) std::memcpy(result.data.data(), data.data(), data.size_bytes());
  return result;
}

class Encoder {
 public:
  Encoder(bool manifold, uint64_t rows, uint64_t cols, const RowSource& source, const EncodeOptions& options)
      : manifold_(manifold), rows_(rows), cols_(cols), source_(source), options_(options) {
    if (cols > kMdcsrMaxCols)
      fail(ErrorCode::kInvalidArgument, "MdCSR allows at most {} columns; the matrix has {}", kMdcsrMaxCols, cols);
    const auto count = checked_mul(rows, cols);
    if (!count || rows == std::numeric_limits<uint64_t>::max())
      fail(ErrorCode::kInvalidArgument, "a matrix of {} x {} weights is too large", rows, cols);
    count_ = *count;
    const double density = options.density;
    if (!(density >= 0.0 && density <= 1.0))
      fail(ErrorCode::kInvalidArgument, "density is {}; it must be between 0 and 1", density);
    const double keep = std::round(density * static_cast<double>(count_));
    check_entry_count(keep);
    keep_ = static_cast<uint64_t>(keep);
    rows_per_block_ = cols == 0 ? std::max<uint64_t>(rows, 1) : ceil_div(kBlockWeights, cols);
    blocks_ = ceil_div(rows, rows_per_block_);
  }

  EncodedMatrix run(const Codec& codec) {
    const Selection selection = select();
    const std::vector<uint64_t> quotas = tie_quotas(selection);
    std::vector<Entries> entries(blocks_);
    std::vector<uint64_t> row_ends(rows_ + 1, 0);
    std::vector<float> scales(rows_, 0.0f);
    for_each_block([&](uint64_t block, uint64_t begin, uint64_t end) {
      std::vector<float> row(cols_);
      std::vector<uint32_t> kept;
      for (uint64_t r = begin; r < end; ++r) {
        source_(r, row);
        uint64_t quota = quotas.empty() ? std::numeric_limits<uint64_t>::max() : quotas[r];
        kept.clear();
        for (uint64_t c = 0; c < cols_; ++c) {
          const uint32_t key = magnitude_key(row[c]);
          if (key < selection.threshold) continue;
          if (key == selection.threshold) {
            if (quota == 0) continue;
            --quota;
          }
          kept.push_back(static_cast<uint32_t>(c));
        }
        const size_t before = entries[block].values.size();
        scales[r] = encode_row(row, kept, entries[block]);
        row_ends[r + 1] = entries[block].values.size() - before;
      }
    });
    for (uint64_t r = 0; r < rows_; ++r) row_ends[r + 1] += row_ends[r];
    return assemble(codec, entries, row_ends, scales);
  }

 private:
  // body(block, first row, last row + 1); of several exceptions the one of the lowest block is thrown.
  template <typename Body>
  void for_each_block(Body body) const {
    std::vector<std::exception_ptr> errors(blocks_);
    const auto task = [&](uint64_t block) {
      try {
        const uint64_t begin = block * rows_per_block_;
        body(block, begin, std::min(rows_, begin + rows_per_block_));
      } catch (...) {
        errors[block] = std::current_exception();
      }
    };
    options_.for_each(blocks_, task);
    for (const std::exception_ptr& error : errors)
      if (error) std::rethrow_exception(error);
  }

  // Sums histograms over all rows; count(histogram, row index, weights) adds one row.
  template <typename Count>
  std::vector<uint64_t> histogram(size_t buckets, Count count) const {
    std::vector<uint64_t> total(buckets);
    std::mutex mutex;
    for_each_block([&](uint64_t, uint64_t begin, uint64_t end) {
      std::vector<uint64_t> local(buckets);
      std::vector<float> row(cols_);
      for (uint64_t r = begin; r < end; ++r) {
        source_(r, row);
        count(local, r, row);
      }
      const std::lock_guard lock(mutex);
      for (size_t i = 0; i < buckets; ++i) total[i] += local[i];
    });
    return total;
  }

  static void check_finite(uint64_t row, std::span<const float> weights) {
    uint32_t largest = 0;
    for (float weight : weights) largest = std::max(largest, magnitude_key(weight));
    if (largest < kInfinityKey) return;
    for (uint64_t c = 0; c < weights.size(); ++c)
      if (!std::isfinite(weights[c]))
        fail(ErrorCode::kInvalidArgument, "the weight at row {}, column {} is {}; only finite weights can be encoded",
             row, c, weights[c]);
  }

  Selection select() const {
    using Histogram = std::vector<uint64_t>;
    const Histogram high =
        histogram(kInfinityKey >> kLowBits, [](Histogram& counts, uint64_t row, std::span<const float> weights) {
          check_finite(row, weights);
          for (float weight : weights) ++counts[magnitude_key(weight) >> kLowBits];
        });
    Selection selection;
    if (keep_ == 0) return selection;
    selection.threshold = 0;
    if (keep_ == count_) return selection;

    uint64_t wanted = keep_;  // still to be found at or below the bucket at hand
    const auto descend = [&wanted](const Histogram& counts) {
      size_t bucket = counts.size() - 1;
      while (counts[bucket] < wanted) wanted -= counts[bucket--];
      return static_cast<uint32_t>(bucket);
    };
    const uint32_t top = descend(high);
    const Histogram low =
        histogram(size_t{1} << kLowBits, [top](Histogram& counts, uint64_t, std::span<const float> weights) {
          for (float weight : weights) {
            const uint32_t key = magnitude_key(weight);
            if (key >> kLowBits == top) ++counts[key & ((1u << kLowBits) - 1)];
          }
        });
    const uint32_t bottom = descend(low);
    selection.threshold = (top << kLowBits) | bottom;
    selection.ties = wanted;
    selection.all_ties = low[bottom] == wanted;
    return selection;
  }

  // How many of each row's ties are kept; empty where all are.
  std::vector<uint64_t> tie_quotas(const Selection& selection) const {
    if (selection.all_ties) return {};
    std::vector<uint64_t> quotas(rows_);
    for_each_block([&](uint64_t, uint64_t begin, uint64_t end) {
      std::vector<float> row(cols_);
      for (uint64_t r = begin; r < end; ++r) {
        source_(r, row);
        quotas[r] = static_cast<uint64_t>(std::count_if(
            row.begin(), row.end(), [&](float weight) { return magnitude_key(weight) == selection.threshold; }));
      }
    });
    uint64_t left = selection.ties;
    for (uint64_t& quota : quotas) {
      quota = std::min(quota, left);
      left -= quota;
    }
    return quotas;
  }

  float encode_row(std::span<const float> row, std::span<const uint32_t> kept, Entries& out) const {
    float absmax = 0.0f;
    for (uint32_t column : kept) absmax = std::max(absmax, std::abs(row[column]));
    const float scale = row_scale(absmax);
    uint32_t last = 0;
    for (uint32_t column : kept) {
      uint32_t gap = column - last;
      last = column;
      for (; gap > kSkipDelta; gap -= kSkipDelta) push(out, kSkipValue, kSkipDelta, 0);
      const double target = scale == 0.0f ? 0.0 : double{row[column]} / double{scale};
      const auto delta = static_cast<uint8_t>(gap);
      if (manifold_) {
        const Refined refined = refine(target);
        push(out, refined.value, delta, refined.prime);
      } else {
        push(out, nearest_value(target), delta, 0);
      }
    }
    return scale;
  }

  static int8_t nearest_value(double target) {
    return static_cast<int8_t>(std::clamp<long>(std::lround(target), -127, 127));
  }

  struct Refined {
    int8_t value;
    uint16_t prime;
  };

  // Levels span just over a half either side, so the nearest value nearly always wins; near a half its neighbour may.
  static Refined refine(double target) {
    const float* half_levels = manifold_half_levels();
    const int8_t nearest = nearest_value(target);
    Refined best{};
    double best_error = std::numeric_limits<double>::infinity();
    for (int value : {int{nearest}, target < nearest ? nearest - 1 : nearest + 1}) {
      if (value < -127 || value > 127) continue;
      const uint16_t prime = nearest_prime_index(2.0 * (target - value));
      const float v = static_cast<float>(value) + half_levels[prime];
      const double error = std::abs(double{v} - target);
      if (error < best_error) {
        best = {static_cast<int8_t>(value), prime};
        best_error = error;
      }
    }
    return best;
  }

  void push(Entries& out, int8_t value, uint8_t delta, uint16_t prime) const {
    out.values.push_back(value);
    out.deltas.push_back(delta);
    if (manifold_) out.primes.push_back(prime);
  }

  template <typename T>
  static EncodedMatrix::Component joined(std::string_view suffix, DType dtype, std::vector<Entries>& entries,
                                         std::vector<T> Entries::*member) {
    uint64_t total = 0;
    for (const Entries& block : entries) total += (block.*member).size();
    EncodedMatrix::Component result{std::string(suffix), dtype, {total}, {}};
    result.data.resize(total * sizeof(T));
    size_t offset = 0;
    for (Entries& block : entries) {
      std::vector<T> part = std::move(block.*member);  // frees as it goes
      if (!part.empty()) std::memcpy(result.data.data() + offset, part.data(), part.size() * sizeof(T));
      offset += part.size() * sizeof(T);
    }
    return result;
  }

  EncodedMatrix assemble(const Codec& codec, std::vector<Entries>& entries, const std::vector<uint64_t>& row_ends,
                         const std::vector<float>& scales) const {
    check_entry_count(static_cast<double>(row_ends.back()));
    std::vector<uint32_t> row_pointers;
    row_pointers.reserve(row_ends.size());
    for (uint64_t end : row_ends) row_pointers.push_back(static_cast<uint32_t>(end));
    EncodedMatrix result{&codec, rows_, cols_, {}};
    result.components.push_back(joined("values", DType::kI8, entries, &Entries::values));
    result.components.push_back(joined("delta_indices", DType::kU8, entries, &Entries::deltas));
    result.components.push_back(component<uint32_t>("row_pointers", DType::kU32, row_pointers));
    result.components.push_back(component<float>("scales", DType::kF32, scales));
    if (manifold_) result.components.push_back(joined("prime_indices", DType::kU16, entries, &Entries::primes));
    return result;
  }

  bool manifold_;
  uint64_t rows_;
  uint64_t cols_;
  const RowSource& source_;
  const EncodeOptions& options_;
  uint64_t count_ = 0;
  uint64_t keep_ = 0;
  uint64_t rows_per_block_ = 1;
  uint64_t blocks_ = 0;
};

}  // namespace

EncodedMatrix encode(const Codec& codec, bool manifold, uint64_t rows, uint64_t cols, const RowSource& source,
                     const EncodeOptions& options) {
  return Encoder(manifold, rows, cols, source, options).run(codec);
}

uint64_t stored_bytes(bool manifold, uint64_t rows, uint64_t cols, double density) {
  const double count = static_cast<double>(rows) * static_cast<double>(cols);
  const double kept = std::round(density * count);
  // Gaps of weights kept at random are geometric: P(gap > 255 n) = (1 - density)^(255 n), summed over n.
  const double wide = std::pow(1.0 - density, 255.0);
  const double bridges = wide < 1.0 ? kept * wide / (1.0 - wide) : 0.0;
  const double entries = kept + std::min(bridges, count / 255.0);
  return static_cast<uint64_t>(std::llround(entries)) * (manifold ? 4 : 2) + 8 * rows + 4;
}

float row_scale(float absmax) {
  if (absmax == 0.0f) return 0.0f;
  const float scale = absmax / 127.0f;
  // Where that is subnormal it is rounded up, so that 127 steps reach the largest weight.
  return scale < FLT_MIN ? std::nextafter(scale, 1.0f) : std::min(scale, kMdcsrMaxScale);
}

std::vector<EncodedMatrix::Component> build_parts(std::string_view prefix, uint64_t rows, uint64_t cols,
                                                  std::span<const Entry> entries, std::span<const float> scales,
                                                  bool manifold) {
  if (cols > kMdcsrMaxCols || scales.size() != rows)
    fail(ErrorCode::kInvalidArgument, "{} scales and {} columns do not make an MdCSR matrix of {} rows", scales.size(),
         cols, rows);
  for (uint64_t r = 0; r < rows; ++r)
    if (!(std::abs(scales[r]) <= kMdcsrMaxScale))
      fail(ErrorCode::kInvalidArgument, "row {} has the scale {}; it must be finite and at most {} in magnitude", r,
           scales[r], kMdcsrMaxScale);
  const uint64_t stored = (built_bytes(rows, entries) - built_bytes(rows, {})) / 2;
  check_entry_count(static_cast<double>(stored));
  std::vector<int8_t> values;
  std::vector<uint8_t> deltas;
  std::vector<uint32_t> row_pointers(rows + 1, 0);
  std::vector<uint16_t> primes;
  values.reserve(stored);
  deltas.reserve(stored);
  if (manifold) primes.reserve(stored);
  for (size_t i = 0; i < entries.size(); ++i) {
    const Entry& entry = entries[i];
    const Entry* before = i > 0 && entries[i - 1].row == entry.row ? &entries[i - 1] : nullptr;
    const bool rises = i == 0 || entries[i - 1].row < entry.row || (before && before->column < entry.column);
    if (entry.row >= rows || entry.column >= cols || entry.value == kSkipValue || !rises)
      fail(ErrorCode::kInvalidArgument,
           "entry {} (row {}, column {}, value {}) is outside the matrix, out of order, a repetition or -128", i,
           entry.row, entry.column, entry.value);
    if (manifold && entry.prime >= kPrimeCount)
      fail(ErrorCode::kInvalidArgument, "entry {} (row {}, column {}) has the prime index {}, must be below {}", i,
           entry.row, entry.column, entry.prime, kPrimeCount);
    uint32_t gap = entry.column - (before ? before->column : 0);
    for (; gap > kSkipDelta; gap -= kSkipDelta) {
      values.push_back(kSkipValue);
      deltas.push_back(kSkipDelta);
      if (manifold) primes.push_back(0);
    }
    if (manifold) primes.push_back(entry.prime);
    values.push_back(entry.value);
    deltas.push_back(static_cast<uint8_t>(gap));
    row_pointers[entry.row + 1] = static_cast<uint32_t>(values.size());
  }
  for (uint64_t r = 0; r < rows; ++r) row_pointers[r + 1] = std::max(row_pointers[r + 1], row_pointers[r]);
  const std::string stem(prefix);
  std::vector<EncodedMatrix::Component> parts;
  parts.push_back(component<int8_t>(stem + "values", DType::kI8, values));
  parts.push_back(component<uint8_t>(stem + "delta_indices", DType::kU8, deltas));
  parts.push_back(component<uint32_t>(stem + "row_pointers", DType::kU32, row_pointers));
  parts.push_back(component<float>(stem + "scales", DType::kF32, scales));
  if (manifold) parts.push_back(component<uint16_t>(stem + "prime_indices", DType::kU16, primes));
  return parts;
}

uint64_t built_bytes(uint64_t rows, std::span<const Entry> entries) {
  uint64_t stored = entries.size();
  for (size_t i = 0; i < entries.size(); ++i) {
    const bool follows = i > 0 && entries[i - 1].row == entries[i].row;
    stored += bridges(entries[i].column - (follows ? entries[i - 1].column : 0));
  }
  return 2 * stored + 8 * rows + 4;
}

}  // namespace upg::mdcsr
