#include "convert/legacy_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/checked.h"
#include "base/error.h"
#include "codec/dense.h"
#include "codec/mdcsr.h"
#include "codec/primes.h"
#include "convert/pickled_json.h"

namespace upg {
namespace {

using pickle::Array;
using pickle::Csr;
using pickle::Kind;
using pickle::Value;

constexpr size_t kLongestName = 512;
constexpr uint64_t kMostSharing = 4;       // layers may share arrays, as tied embeddings do, but not without end
constexpr uint64_t kMostGrowth = 1000;     // of a matrix
constexpr uint64_t kFreeGrowth = 1 << 20;  // beyond that factor
constexpr size_t kChunk = 1 << 16;         // elements

bool is_weight_name(std::string_view name) {
  return !name.empty() && name.size() <= kLongestName && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

// Of a matrix in the file: checked to fit together, columns of a row not yet looked at.
struct LegacyMatrix {
  uint64_t rows, cols;
  Array values, columns, primes;
  bool manifold;
  std::vector<uint64_t> row_pointers;  // [rows + 1]
  std::vector<float> scales;           // [rows]
};

struct Row {
  std::vector<mdcsr::Entry> entries;
  std::vector<int64_t> values, columns, primes;  // as they come, a value of -128 among them
};

void require_vector(const Array& array, uint64_t length, std::string_view what, std::string_view part) {
  if (array.shape.size() != 1 || array.shape[0] != length)
    fail(ErrorCode::kInvalidFile, "{}: {} has the shape {}, expected [{}]", what, part, shape_string(array.shape),
         length);
}

std::vector<uint64_t> read_row_pointers(const Array& array, uint64_t rows, uint64_t nnz, std::string_view what) {
  if (rows >= UINT32_MAX) fail(ErrorCode::kInvalidFile, "{}: has {} rows", what, rows);
  require_vector(array, rows + 1, what, "indptr");
  std::vector<int64_t> raw(rows + 1);
  pickle::read_integers(array, 0, raw, what);
  std::vector<uint64_t> pointers;
  pointers.reserve(raw.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    const int64_t least = i == 0 ? 0 : raw[i - 1];
    if (raw[i] < least || (i == 0 && raw[i] != 0) || static_cast<uint64_t>(raw[i]) > nnz)
      fail(ErrorCode::kInvalidFile, "{}: indptr: element {} is {}; they start with 0, never fall, and end with {}",
           what, i, raw[i], nnz);
    pointers.push_back(static_cast<uint64_t>(raw[i]));
  }
  if (pointers.back() != nnz)
    fail(ErrorCode::kInvalidFile, "{}: indptr ends with {}, must end with the number of values, {}", what,
         pointers.back(), nnz);
  return pointers;
}

std::vector<float> read_scales(const Array& array, uint64_t rows, std::string_view what) {
  require_vector(array, rows, what, "scales");
  std::vector<float> scales(rows);
  pickle::read_exact_floats(array, 0, scales, fmt::format("{}: scales", what));
  for (uint64_t row = 0; row < rows; ++row)
    if (!(std::abs(scales[row]) <= kMdcsrMaxScale))
      fail(ErrorCode::kInvalidFile, "{}: scales: row {} has the scale {}, must be finite and at most {} in magnitude",
           what, row, scales[row], kMdcsrMaxScale);
  return scales;
}

// Reads row `r` into `row`, sorted by column. True where a value is -128, which MdCSR has no place for.
bool read_row(const LegacyMatrix& m, uint64_t r, std::string_view what, Row& row) {
  const uint64_t begin = m.row_pointers[r];
  const uint64_t count = m.row_pointers[r + 1] - begin;
  if (count > m.cols) fail(ErrorCode::kInvalidFile, "{}: row {} has {} values in {} columns", what, r, count, m.cols);
  row.entries.resize(count);
  row.values.resize(count);
  row.columns.resize(count);
  row.primes.assign(count, 0);
  pickle::read_integers(m.values, begin, row.values, what);
  pickle::read_integers(m.columns, begin, row.columns, what);
  if (m.manifold) pickle::read_integers(m.primes, begin, row.primes, what);
  bool lowest = false;
  for (uint64_t k = 0; k < count; ++k) {
    const int64_t column = row.columns[k], value = row.values[k], prime = row.primes[k];
    if (column < 0 || static_cast<uint64_t>(column) >= m.cols)
      fail(ErrorCode::kInvalidFile, "{}: indices: element {} (row {}) is {}, but the matrix has {} columns", what,
           begin + k, r, column, m.cols);
    if (value < -128 || value > 127)
      fail(ErrorCode::kInvalidFile, "{}: values: element {} (row {}) is {}, must be -128 to 127", what, begin + k, r,
           value);
    if (prime < 0 || prime >= kPrimeCount)
      fail(ErrorCode::kInvalidFile, "{}: prime_indices: element {} (row {}) is {}, must be below {}", what, begin + k,
           r, prime, kPrimeCount);
    lowest |= value == kSkipValue;
    row.entries[k] = {static_cast<uint32_t>(r), static_cast<uint32_t>(column), static_cast<int8_t>(value),
                      static_cast<uint16_t>(prime)};
  }
  const auto by_column = [](const mdcsr::Entry& a, const mdcsr::Entry& b) { return a.column < b.column; };
  if (!std::is_sorted(row.entries.begin(), row.entries.end(), by_column))
    std::sort(row.entries.begin(), row.entries.end(), by_column);
  for (uint64_t k = 1; k < count; ++k)
    if (row.entries[k].column == row.entries[k - 1].column)
      fail(ErrorCode::kInvalidFile, "{}: indices: column {} is twice in row {}", what, row.entries[k].column, r);
  return lowest;
}

// The weight of an entry, as MdCSR defines it.
float weight_of(const LegacyMatrix& m, const mdcsr::Entry& entry) {
  float value = entry.value;
  if (m.manifold) value += manifold_half_levels()[entry.prime];
  return m.scales[entry.row] * value;
}

// Whether `bytes` are more than could come of `stored` bytes in the file: a few entries of a wide matrix need many
// bridges, or many zeros where it is stored dense.
bool grows_too_much(std::optional<uint64_t> bytes, uint64_t stored) {
  const auto most = checked_mul(stored, kMostGrowth);
  return !bytes || (most && *bytes > checked_add(*most, kFreeGrowth).value_or(UINT64_MAX));
}

void require_growth(uint64_t rows, uint64_t cols, uint64_t stored, std::string_view what, std::string_view why) {
  const auto elements = checked_mul(rows, cols);
  if (grows_too_much(elements ? checked_mul(*elements, sizeof(float)) : std::nullopt, stored))
    fail(
        ErrorCode::kUnsupported,
        "{}: {}, so MdCSR cannot hold it; stored dense, its {} x {} weights would take over {} times the {} bytes that "
        "it has",
        what, why, rows, cols, kMostGrowth, stored);
}

StoredWeight dense_matrix(uint64_t rows, uint64_t cols, std::vector<std::byte> data, std::string note) {
  StoredWeight weight{&kF32Codec, {rows, cols}, {}, {}, std::move(note)};
  weight.parts.push_back(owned_part("", DType::kF32, {rows, cols}, std::move(data)));
  return weight;
}

StoredWeight as_dense(const LegacyMatrix& m, uint64_t stored, std::string_view what) {
  require_growth(m.rows, m.cols, stored, what, "a value is -128");
  std::vector<std::byte> data(m.rows * m.cols * sizeof(float));
  Row row;
  for (uint64_t r = 0; r < m.rows; ++r) {
    read_row(m, r, what, row);
    for (const mdcsr::Entry& entry : row.entries) {
      const float weight = weight_of(m, entry);
      if (!std::isfinite(weight))
        fail(ErrorCode::kInvalidFile, "{}: the weight at row {}, column {} is {}", what, r, entry.column, weight);
      std::memcpy(data.data() + (r * m.cols + entry.column) * sizeof weight, &weight, sizeof weight);
    }
  }
  return dense_matrix(m.rows, m.cols, std::move(data), "stored dense: a value is -128, which MdCSR keeps for itself");
}

StoredWeight as_mdcsr(const LegacyMatrix& m, uint64_t stored, std::string_view what) {
  std::vector<mdcsr::Entry> entries;
  entries.reserve(m.row_pointers.back());
  Row row;
  for (uint64_t r = 0; r < m.rows; ++r) {
    if (read_row(m, r, what, row)) return as_dense(m, stored, what);
    entries.insert(entries.end(), row.entries.begin(), row.entries.end());
  }
  if (grows_too_much(mdcsr::built_bytes(m.rows, entries), stored))
    fail(ErrorCode::kUnsupported,
         "{}: has {} entries in {} x {} weights: too few for MdCSR, whose columns are distances", what, entries.size(),
         m.rows, m.cols);
  StoredWeight weight{m.manifold ? &kMdcsrManifoldCodec : &kMdcsrCodec, {m.rows, m.cols}, {}, {}, {}};
  try {
    for (auto& part : mdcsr::build_parts("", m.rows, m.cols, entries, m.scales, m.manifold))
      weight.parts.push_back(owned_part(part.suffix, part.dtype, part.shape, std::move(part.data)));
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", what, error.what());
  }
  return weight;
}

// A CSR matrix of floating-point numbers has no int8 form that is the same.
StoredWeight float_csr(const Csr& csr, uint64_t stored, std::string_view what) {
  const uint64_t nnz = csr.values.elements();
  if (csr.cols > kMdcsrMaxCols)
    fail(ErrorCode::kInvalidFile, "{}: has {} columns; at most {} are read", what, csr.cols, kMdcsrMaxCols);
  require_vector(csr.values, nnz, what, "data");
  require_vector(csr.columns, nnz, what, "indices");
  const auto pointers = read_row_pointers(csr.row_pointers, csr.rows, nnz, what);
  require_growth(csr.rows, csr.cols, stored, what, "its values are floating-point numbers");
  std::vector<std::byte> data(csr.rows * csr.cols * sizeof(float));
  std::vector<bool> taken(csr.rows > 0 ? csr.cols : 0);  // rows * cols is bounded, cols alone is not
  std::vector<int64_t> columns;
  std::vector<float> values;
  for (uint64_t r = 0; r < csr.rows; ++r) {
    const uint64_t count = pointers[r + 1] - pointers[r];
    if (count > csr.cols)
      fail(ErrorCode::kInvalidFile, "{}: row {} has {} values in {} columns", what, r, count, csr.cols);
    columns.resize(count);
    values.resize(count);
    pickle::read_integers(csr.columns, pointers[r], columns, what);
    pickle::read_exact_floats(csr.values, pointers[r], values, what);
    for (uint64_t k = 0; k < count; ++k) {
      if (columns[k] < 0 || static_cast<uint64_t>(columns[k]) >= csr.cols || taken[static_cast<size_t>(columns[k])])
        fail(ErrorCode::kInvalidFile, "{}: indices: {} in row {} is no column, or there twice", what, columns[k], r);
      taken[static_cast<size_t>(columns[k])] = true;
      std::memcpy(data.data() + (r * csr.cols + static_cast<uint64_t>(columns[k])) * sizeof(float), &values[k],
                  sizeof(float));
    }
    for (const int64_t column : columns) taken[static_cast<size_t>(column)] = false;
  }
  return dense_matrix(csr.rows, csr.cols, std::move(data), "stored dense: its values are floating-point numbers");
}

}  // namespace

LegacyModel::LegacyModel(std::span<const std::byte> bytes, const std::string& where)
    : where_(where), document_(bytes, where) {
  if (document_.tree().fields(document_.top()) == nullptr)
    fail(ErrorCode::kInvalidFile, "{}: holds {}, a UPG 1.0 file is a dict of version, model and layers", where_,
         kind_name(document_.top().kind));
  read_version();
  read_model();
  read_layers();
}

const Value& LegacyModel::require(const Value& layer, std::string_view key, std::string_view what) const {
  const Value* found = document_.tree().find(layer, key);
  if (found == nullptr) fail(ErrorCode::kInvalidFile, "{}: \"{}\" is missing", what, key);
  return *found;
}

void LegacyModel::read_version() {
  const Value& version = require(document_.top(), "version", where_);
  const bool known = (is_text(version) && (version.bytes == "1.0" || version.bytes == "1")) ||
                     (version.kind == Kind::kFloat && version.real == 1.0) ||
                     (version.kind == Kind::kInt && version.number == 1);
  if (known) return;
  const std::string found = is_text(version)               ? pickle::shown(version.bytes)
                            : version.kind == Kind::kInt   ? std::to_string(version.number)
                            : version.kind == Kind::kFloat ? fmt::format("{}", version.real)
                                                           : std::string(kind_name(version.kind));
  fail(ErrorCode::kUnsupported, "{}: \"version\" is {}; of pickles, UPG 1.0 is read", where_, found);
}

// A model's name, which says nothing that is needed; its configuration; or a dict of texts by their files' names.
void LegacyModel::read_model() {
  const pickle::Tree& tree = document_.tree();
  const Value* model = tree.find(document_.top(), "model");
  if (model == nullptr || tree.fields(*model) == nullptr) return;
  if (tree.find(*model, "architectures") != nullptr) {
    texts_.config = pickled_json(tree, *tree.fields(*model), where_ + ": model");
    return;
  }
  struct Text {
    std::string_view key;
    std::string ModelTexts::*text;
  };
  constexpr std::array kTexts = {
      Text{"config", &ModelTexts::config}, Text{"generation_config", &ModelTexts::generation_config},
      Text{"tokenizer", &ModelTexts::tokenizer}, Text{"tokenizer_config", &ModelTexts::tokenizer_config},
      Text{"chat_template", &ModelTexts::chat_template}};
  for (const Text& text : kTexts) {
    const Value* value = tree.find(*model, text.key);
    if (value == nullptr || value->kind == Kind::kNone) continue;
    if (is_text(*value) || value->kind == Kind::kBytes)
      texts_.*text.text = value->bytes;
    else
      texts_.*text.text = pickled_json(tree, *value, fmt::format("{}: model: {}", where_, text.key));
  }
}

void LegacyModel::read_layers() {
  const pickle::Tree& tree = document_.tree();
  const Value* layers = tree.fields(require(document_.top(), "layers", where_));
  if (layers == nullptr) fail(ErrorCode::kInvalidFile, "{}: \"layers\" is not a dict", where_);
  bool weights = false;  // else they are names of modules
  uint64_t bytes = 0;
  for (size_t i = 0; i + 1 < layers->items.size(); i += 2) {
    const Value& name = tree[layers->items[i]];
    if (!is_text(name) || !is_weight_name(name.bytes))
      fail(ErrorCode::kInvalidFile, "{}: \"layers\" has the key \"{}\", which is no weight's name", where_,
           is_text(name) ? pickle::shown(name.bytes) : std::string(kind_name(name.kind)));
    const Value& layer = tree[layers->items[i + 1]];
    items_.push_back({std::string(name.bytes), array_bytes(layer, fmt::format("{}: {}", where_, name.bytes))});
    layers_.push_back(&layer);
    weights |= name.bytes.ends_with(".weight");
    bytes = checked_add(bytes, items_.back().bytes).value_or(UINT64_MAX);
    if (bytes / kMostSharing > document_.unpacked_bytes())
      fail(ErrorCode::kInvalidFile, "{}: its layers share the same arrays over and over, up to \"{}\"", where_,
           name.bytes);
  }
  if (items_.empty()) fail(ErrorCode::kInvalidFile, "{}: \"layers\" is empty", where_);
  if (!weights)
    for (Item& item : items_) item.name += ".weight";
  std::vector<std::string_view> names;
  for (const Item& item : items_) names.push_back(item.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) fail(ErrorCode::kInvalidFile, "{}: \"layers\" has {} twice", where_, *twice);
}

uint64_t LegacyModel::array_bytes(const Value& layer, std::string_view what) const {
  const pickle::ArrayReader& arrays = document_.arrays();
  const auto size_of = [&](const Value& value) -> uint64_t {
    if (arrays.is_array(value)) return arrays.array(value, what).bytes.data.size();
    if (!arrays.is_csr(value)) return 0;
    const Csr csr = arrays.csr(value, what);
    return csr.values.bytes.data.size() + csr.columns.bytes.data.size() + csr.row_pointers.bytes.data.size();
  };
  if (arrays.is_array(layer) || arrays.is_csr(layer)) return size_of(layer);
  uint64_t bytes = 0;
  for (const std::string_view key : {"values", "indices", "indptr", "scales", "prime_indices", "csr"})
    if (const Value* part = document_.tree().find(layer, key)) bytes += size_of(*part);
  return bytes;
}

StoredWeight LegacyModel::load(size_t index) const {
  const Value& layer = *layers_.at(index);
  const std::string what = fmt::format("{}: {}", where_, items_[index].name);
  const pickle::ArrayReader& arrays = document_.arrays();
  if (arrays.is_array(layer)) return dense(layer, what);
  if (arrays.is_csr(layer)) return float_csr(arrays.csr(layer, what), items_[index].bytes, what);
  if (document_.tree().fields(layer) == nullptr)
    fail(ErrorCode::kInvalidFile, "{}: is {}, expected a dict of arrays, an array or a CSR matrix", what,
         kind_name(layer.kind));
  return matrix(layer, what);
}

StoredWeight LegacyModel::matrix(const Value& layer, std::string_view what) const {
  const pickle::Tree& tree = document_.tree();
  const pickle::ArrayReader& arrays = document_.arrays();
  const auto part = [&](std::string_view key) {
    return arrays.array(require(layer, key, what), fmt::format("{}: {}", what, key));
  };
  Csr csr;
  if (const Value* whole = tree.find(layer, "csr")) {
    if (!arrays.is_csr(*whole)) fail(ErrorCode::kInvalidFile, "{}: csr is {}", what, kind_name(whole->kind));
    csr = arrays.csr(*whole, fmt::format("{}: csr", what));
  } else {
    const std::vector<uint64_t> shape = arrays.sizes(require(layer, "shape", what), fmt::format("{}: shape", what));
    if (shape.size() != 2)
      fail(ErrorCode::kInvalidFile, "{}: shape has {} dimensions, a matrix has 2", what, shape.size());
    csr = {shape[0], shape[1], part("values"), part("indices"), part("indptr")};
  }
  if (csr.cols > kMdcsrMaxCols)
    fail(ErrorCode::kInvalidFile, "{}: has {} columns; at most {} are read", what, csr.cols, kMdcsrMaxCols);
  const uint64_t nnz = csr.values.elements();
  require_vector(csr.values, nnz, what, "values");
  require_vector(csr.columns, nnz, what, "indices");
  LegacyMatrix m{csr.rows, csr.cols, csr.values, csr.columns, {}, false, {}, {}};
  m.row_pointers = read_row_pointers(csr.row_pointers, csr.rows, nnz, what);
  m.scales = read_scales(part("scales"), csr.rows, what);
  const Value* primes = tree.find(layer, "prime_indices");
  m.manifold = primes != nullptr && primes->kind != Kind::kNone;
  if (m.manifold) {
    m.primes = part("prime_indices");
    require_vector(m.primes, nnz, what, "prime_indices");
  }
  const uint64_t stored =
      csr.values.bytes.data.size() + csr.columns.bytes.data.size() + csr.row_pointers.bytes.data.size();
  return as_mdcsr(m, stored, what);
}

StoredWeight LegacyModel::dense(const Value& value, std::string_view what) const {
  const Array array = document_.arrays().array(value, what);
  constexpr size_t kMostDimensions = 8;  // of a UPG file's weights
  const size_t rank = array.shape.size();
  if (rank == 0 || rank > kMostDimensions)
    fail(ErrorCode::kInvalidFile, "{}: is an array of {} dimensions", what, rank);
  const bool transposed = array.fortran && rank > 1;
  if (transposed && rank != 2)
    fail(ErrorCode::kUnsupported, "{}: is an array of {} dimensions in Fortran order; save it in C order", what, rank);
  const Codec* codec = dense_codec(array.dtype);
  StoredWeight weight{codec != nullptr ? codec : &kF32Codec, array.shape, {}, {}, {}};
  const DType dtype = codec != nullptr ? array.dtype : DType::kF32;
  const uint64_t size = dtype_info(dtype).bytes;
  std::vector<std::byte> data(array.elements() * size);
  if (codec != nullptr) {
    std::memcpy(data.data(), array.bytes.data.data(), data.size());
    if (array.swapped)
      for (size_t i = 0; i < data.size(); i += size) std::reverse(data.data() + i, data.data() + i + size);
  } else {  // float64 that float32 holds
    std::vector<float> chunk;
    for (uint64_t first = 0; first < array.elements(); first += chunk.size()) {
      chunk.resize(std::min<uint64_t>(kChunk, array.elements() - first));
      pickle::read_exact_floats(array, first, chunk, what);
      std::memcpy(data.data() + first * size, chunk.data(), chunk.size() * size);
    }
  }
  if (transposed) {
    const uint64_t rows = array.shape[0], cols = array.shape[1];
    std::vector<std::byte> straight(data.size());
    for (uint64_t r = 0; r < rows; ++r)
      for (uint64_t c = 0; c < cols; ++c)
        std::memcpy(straight.data() + (r * cols + c) * size, data.data() + (c * rows + r) * size, size);
    data = std::move(straight);
  }
  weight.parts.push_back(owned_part("", dtype, array.shape, std::move(data)));
  return weight;
}

}  // namespace upg
