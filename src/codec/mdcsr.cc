// MdCSR: opening (with every rule of codec/layout/mdcsr.h checked), decoding and the reference product.
#include "codec/mdcsr.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "codec/primes.h"

namespace upg {
namespace {

// The view and copies of those parts that a foreign file left unaligned for their type.
struct MdcsrLayout {
  MdcsrView view{};
  std::vector<uint32_t> row_pointers;
  std::vector<float> scales;
  std::vector<uint16_t> prime_indices;
};

template <typename T>
const T* aligned_data(const TensorView& part, std::vector<T>& copy) {
  if (reinterpret_cast<uintptr_t>(part.data.data()) % alignof(T) == 0) return part.as<T>();
  copy.resize(part.data.size() / sizeof(T));
  if (!copy.empty()) std::memcpy(copy.data(), part.data.data(), copy.size() * sizeof(T));
  return copy.data();
}

// `stem` and a part's suffix are the part's name. Names the first broken entry of a row that check_row found wanting.
[[noreturn]] void fail_row(std::string_view stem, const MdcsrView& view, uint64_t row) {
  uint64_t column = 0;
  const uint64_t begin = view.row_pointers[row];
  for (uint64_t k = begin; k < view.row_pointers[row + 1]; ++k) {
    const uint32_t delta = view.delta_indices[k];
    const bool bridge = view.values[k] == kSkipValue;
    column += delta;
    if (column >= view.cols)
      fail(ErrorCode::kInvalidFile,
           "{}delta_indices: entry {} takes row {} to column {}, but the matrix has {} columns", stem, k, row, column,
           view.cols);
    if (bridge && delta != kSkipDelta)
      fail(ErrorCode::kInvalidFile, "{}values: entry {} (row {}) is -128, which is reserved for a delta of 255, not {}",
           stem, k, row, delta);
    if (delta == 0 && k != begin && view.values[k - 1] != kSkipValue)
      fail(ErrorCode::kInvalidFile, "{}delta_indices: entry {} gives column {} of row {} twice", stem, k, column, row);
    if (view.prime_indices != nullptr && view.prime_indices[k] >= kPrimeCount)
      fail(ErrorCode::kInvalidFile, "{}prime_indices: entry {} (row {}) is {}, must be below {}", stem, k, row,
           view.prime_indices[k], kPrimeCount);
  }
  UPG_CHECK(false);  // check_row and this function disagree
}

// Free of branches within a row, for opening reads every byte: a matrix may have billions.
bool check_row(const MdcsrView& view, uint64_t begin, uint64_t end) {
  const int8_t* values = view.values;
  const uint8_t* deltas = view.delta_indices;
  uint64_t last_column = 0;
  uint8_t broken = 0;
  // Chunks keep the inner sums in 32 bits.
  for (uint64_t chunk = begin; chunk < end;) {
    const uint64_t stop = std::min<uint64_t>(end, chunk + 65536);
    uint32_t sum = 0;
    for (uint64_t k = chunk; k < stop; ++k) {
      sum += deltas[k];
      broken |= static_cast<uint8_t>((values[k] == kSkipValue) & (deltas[k] != kSkipDelta));
    }
    for (uint64_t k = std::max(chunk, begin + 1); k < stop; ++k)
      broken |= static_cast<uint8_t>((deltas[k] == 0) & (values[k - 1] != kSkipValue));
    last_column += sum;
    chunk = stop;
  }
  if (view.prime_indices != nullptr) {
    uint16_t largest = 0;
    for (uint64_t k = begin; k < end; ++k) largest = std::max(largest, view.prime_indices[k]);
    broken |= static_cast<uint8_t>(largest >= kPrimeCount);
  }
  // Columns only grow along a row, so the last one bounds them all.
  return broken == 0 && (begin == end || last_column < view.cols);
}

void check_view(std::string_view stem, const MdcsrView& view) {
  if (view.row_pointers[0] != 0)
    fail(ErrorCode::kInvalidFile, "{}row_pointers: starts with {}, must start with 0", stem, view.row_pointers[0]);
  for (uint64_t row = 0; row < view.rows; ++row)
    if (view.row_pointers[row + 1] < view.row_pointers[row])
      fail(ErrorCode::kInvalidFile, "{}row_pointers: falls from {} to {} after row {}", stem, view.row_pointers[row],
           view.row_pointers[row + 1], row);
  if (view.row_pointers[view.rows] != view.nnz)
    fail(ErrorCode::kInvalidFile, "{}row_pointers: ends with {}, must end with the number of values, {}", stem,
         view.row_pointers[view.rows], view.nnz);
  for (uint64_t row = 0; row < view.rows; ++row) {
    if (!(std::abs(view.scales[row]) <= kMdcsrMaxScale))
      fail(ErrorCode::kInvalidFile, "{}scales: row {} has the scale {}, must be finite and at most {} in magnitude",
           stem, row, view.scales[row], kMdcsrMaxScale);
    if (!check_row(view, view.row_pointers[row], view.row_pointers[row + 1])) fail_row(stem, view, row);
  }
}

template <bool kManifold>
Matrix open(std::string_view name, uint64_t rows, uint64_t cols, std::span<const TensorView> parts) {
  static constexpr std::array<std::string_view, 5> kSuffixes = {"values", "delta_indices", "row_pointers", "scales",
                                                                "prime_indices"};
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!kManifold && parts[i].name == kSuffixes[4])
      fail(ErrorCode::kInvalidFile, "{}.prime_indices: is not part of codec mdcsr; with it the codec is mdcsr_manifold",
           name);
    if (std::find(kSuffixes.begin(), kSuffixes.end(), parts[i].name) == kSuffixes.end())
      fail(ErrorCode::kInvalidFile, "{}.{}: no such part in an MdCSR matrix", name, parts[i].name);
    if (find_part(parts, parts[i].name) != &parts[i])
      fail(ErrorCode::kInvalidFile, "{}.{}: is there twice", name, parts[i].name);
  }
  return {kManifold ? &kMdcsrManifoldCodec : &kMdcsrCodec, rows, cols,
          mdcsr::open_view(name, "", kManifold, rows, cols, parts)};
}

// Calls visit(column, weight) for the contributing entries of a row. Two float steps, each rounded; see the layout
// header.
template <typename Visit>
void for_each_weight(const MdcsrView& view, uint64_t row, Visit visit) {
  uint64_t column = 0;
  for (uint64_t k = view.row_pointers[row]; k < view.row_pointers[row + 1]; ++k) {
    column += view.delta_indices[k];
    if (view.values[k] == kSkipValue) continue;
    float v = view.values[k];
    if (view.prime_indices != nullptr) v += view.prime_levels[view.prime_indices[k]];
    visit(column, view.scales[row] * v);
  }
}

void decode_row_of(const MdcsrView& view, uint64_t row, float* out) {
  std::fill_n(out, view.cols, 0.0f);
  for_each_weight(view, row, [&](uint64_t column, float weight) { out[column] = weight; });
}

void decode_row(const Matrix& matrix, uint64_t row, float* out) { decode_row_of(mdcsr_view(matrix), row, out); }

template <bool kManifold>
uint64_t stored_bytes(uint64_t rows, uint64_t cols, double density) {
  return mdcsr::stored_bytes(kManifold, rows, cols, density);
}

template <bool kManifold>
EncodedMatrix encode(uint64_t rows, uint64_t cols, const RowSource& source, const EncodeOptions& options) {
  return mdcsr::encode(kManifold ? kMdcsrManifoldCodec : kMdcsrCodec, kManifold, rows, cols, source, options);
}

}  // namespace

const Codec kMdcsrCodec = {
    "mdcsr",       1,
    "2.0",         "sparse rows, 8-bit values and 8-bit column deltas: largest weights kept",
    "f32",         stored_bytes<false>,
    encode<false>, open<false>,
    decode_row,
};
const Codec kMdcsrManifoldCodec = {
    "mdcsr_manifold",
    1,
    "2.0",
    "as mdcsr, with a 16-bit prime index that refines each value: nearly lossless weights",
    "f32",
    stored_bytes<true>,
    encode<true>,
    open<true>,
    decode_row,
};

namespace mdcsr {

std::shared_ptr<const MdcsrView> open_view(std::string_view name, std::string_view prefix, bool manifold, uint64_t rows,
                                           uint64_t cols, std::span<const TensorView> parts) {
  if (cols > kMdcsrMaxCols)
    fail(ErrorCode::kInvalidFile, "{}: has {} columns; MdCSR allows at most {}", name, cols, kMdcsrMaxCols);
  const auto pointer_count = checked_add(rows, 1);
  if (!pointer_count) fail(ErrorCode::kInvalidFile, "{}: {} rows are too many", name, rows);
  const auto require_list = [&](std::string_view suffix, DType dtype, uint64_t length) -> const TensorView& {
    return require_part(name, parts, std::string(prefix) + std::string(suffix), dtype, std::array{length});
  };

  // The number of entries is known from `values` alone; all else must agree with it.
  const TensorView* first = find_part(parts, std::string(prefix) + "values");
  const uint64_t nnz = first != nullptr && first->shape.size() == 1 ? first->shape[0] : 0;
  const TensorView& values = require_list("values", DType::kI8, nnz);
  const TensorView& deltas = require_list("delta_indices", DType::kU8, nnz);
  const TensorView& pointers = require_list("row_pointers", DType::kU32, *pointer_count);
  const TensorView& scales = require_list("scales", DType::kF32, rows);

  auto layout = std::make_shared<MdcsrLayout>();
  MdcsrView& view = layout->view;
  view.rows = rows;
  view.cols = cols;
  view.nnz = nnz;
  view.values = values.as<int8_t>();
  view.delta_indices = deltas.as<uint8_t>();
  view.row_pointers = aligned_data(pointers, layout->row_pointers);
  view.scales = aligned_data(scales, layout->scales);
  if (manifold) {
    view.prime_indices = aligned_data(require_list("prime_indices", DType::kU16, nnz), layout->prime_indices);
    view.prime_levels = manifold_half_levels();
  }
  check_view(fmt::format("{}.{}", name, prefix), view);
  return std::shared_ptr<const MdcsrView>(layout, &layout->view);
}

void add_row(const MdcsrView& view, uint64_t row, float* out) {
  for_each_weight(view, row, [&](uint64_t column, float weight) { out[column] += weight; });
}

}  // namespace mdcsr

void mdcsr_to_dense(const MdcsrView& view, float* out) {
  for (uint64_t row = 0; row < view.rows; ++row) decode_row_of(view, row, out + row * view.cols);
}

void mdcsr_spmv_ref(const MdcsrView& view, const float* x, double* y) {
  for (uint64_t row = 0; row < view.rows; ++row) {
    double sum = 0;
    for_each_weight(view, row, [&](uint64_t column, float weight) { sum += double{weight} * double{x[column]}; });
    y[row] = sum;
  }
}

}  // namespace upg
