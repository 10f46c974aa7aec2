#include "export/gguf_writer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <set>
#include <string_view>
#include <type_traits>

#include "base/atomic_file.h"
#include "base/checked.h"
#include "base/error.h"

namespace upg {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is written as it lies in memory");

constexpr uint32_t kVersion = 3;
constexpr uint64_t kAlignment = 32;            // the format's default
constexpr size_t kMaxName = 63;                // ggml keeps so many characters of a tensor's name
constexpr uint64_t kPieceElements = 1u << 18;  // of a worker, rounded to whole grains

// The format's numbers of value types.
template <typename T>
constexpr uint32_t kValueType = std::is_same_v<T, uint8_t>       ? 0
                                : std::is_same_v<T, uint32_t>    ? 4
                                : std::is_same_v<T, int32_t>     ? 5
                                : std::is_same_v<T, float>       ? 6
                                : std::is_same_v<T, bool>        ? 7
                                : std::is_same_v<T, std::string> ? 8
                                                                 : UINT32_MAX;
constexpr uint32_t kArray = 9;

class Header {
 public:
  template <typename T>
  void put(const T& value) {
    static_assert(std::is_arithmetic_v<T>);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void put(const std::string& text) {
    put(uint64_t{text.size()});
    bytes += text;
  }
  template <typename T>
  void put_value(const T& value) {
    put(kValueType<T>);
    put(value);
  }
  template <typename T>
  void put_value(const std::vector<T>& values) {
    put(kArray);
    put(kValueType<T>);
    put(uint64_t{values.size()});
    for (const auto& value : values) put(value);
  }

  std::string bytes;
};

uint64_t aligned(uint64_t offset) { return ceil_div(offset, kAlignment) * kAlignment; }

// What the caller declares is this library's own, but its sizes come from files.
uint64_t checked_bytes(const GgufTensor& tensor) {
  const auto elements = checked_product(tensor.shape);
  if (!elements || *elements > (uint64_t{1} << 56))
    fail(ErrorCode::kInvalidFile, "tensor {}: its shape is too large", tensor.name);
  UPG_CHECK(!tensor.shape.empty() && tensor.cols() % tensor.type->block == 0 && tensor.rows() % tensor.grain == 0);
  return tensor.type->bytes(*elements);
}

std::string make_header(const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors) {
  Header header;
  header.bytes = "GGUF";
  header.put(kVersion);
  header.put(uint64_t{tensors.size()});
  header.put(uint64_t{metadata.size()});
  std::set<std::string_view> names;
  for (const auto& [key, value] : metadata) {
    UPG_CHECK(names.insert(key).second);
    header.put(key);
    std::visit([&](const auto& v) { header.put_value(v); }, value);
  }
  names.clear();
  uint64_t offset = 0;
  for (const GgufTensor& tensor : tensors) {
    UPG_CHECK(names.insert(tensor.name).second && tensor.name.size() <= kMaxName);
    header.put(tensor.name);
    header.put(static_cast<uint32_t>(tensor.shape.size()));
    for (size_t i = tensor.shape.size(); i-- > 0;) header.put(tensor.shape[i]);  // rows first
    header.put(tensor.type->id);
    header.put(offset);
    const auto end = checked_add(offset, checked_bytes(tensor));
    if (!end || *end > (uint64_t{1} << 60))
      fail(ErrorCode::kInvalidFile, "tensor {}: the file would be too large", tensor.name);
    offset = aligned(*end);
  }
  header.bytes.resize(aligned(header.bytes.size()));
  return header.bytes;
}

void encode(const GgufTensor& tensor, uint64_t row, std::span<const float> values, std::byte* out) {
  const auto broken = [&](size_t i, std::string_view what) {
    fail(ErrorCode::kInvalidFile, "tensor {} has {} at row {}, column {}: {}", tensor.name, values[i],
         row + i / tensor.cols(), i % tensor.cols(), what);
  };
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i])) broken(i, "it cannot be exported");
  const size_t fits = tensor.type->encode(values, out);
  if (fits != values.size()) broken(fits, fmt::format("too large for {}; use another type", tensor.type->name));
}

void write_tensor(AtomicFile& file, uint64_t offset, const GgufTensor& tensor, ThreadPool& pool,
                  const std::function<void(uint64_t)>& advance) {
  const uint64_t grain_elements = tensor.grain * tensor.cols();
  if (grain_elements == 0) return;
  const uint64_t grains = tensor.rows() / tensor.grain;
  const uint64_t at_once = std::max<uint64_t>(1, kPieceElements / grain_elements) * pool.size();
  const uint64_t grain_bytes = tensor.type->bytes(grain_elements);
  std::vector<std::byte> stored(std::min(grains, at_once) * grain_bytes);
  std::vector<std::vector<float>> values(pool.size());
  for (uint64_t first = 0; first < grains; first += at_once) {
    const uint64_t n = std::min(at_once, grains - first);
    pool.split(n, 1, [&](uint64_t begin, uint64_t end, unsigned worker) {
      values[worker].resize(grain_elements);
      for (uint64_t g = begin; g < end; ++g) {
        const uint64_t row = (first + g) * tensor.grain;
        tensor.read(row, values[worker].data());
        encode(tensor, row, values[worker], stored.data() + g * grain_bytes);
      }
    });
    file.write_at(offset + first * grain_bytes, std::span(stored).first(n * grain_bytes));
    if (advance) advance(n * grain_elements);
  }
}

}  // namespace

uint64_t GgufTensor::rows() const {
  uint64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}

uint64_t write_gguf(const std::string& path, const GgufMetadata& metadata, const std::vector<GgufTensor>& tensors,
                    ThreadPool& pool, const std::function<void(uint64_t)>& advance) {
  AtomicFile file(path);
  const std::string header = make_header(metadata, tensors);
  file.write_at(0, std::as_bytes(std::span(header)));
  uint64_t offset = header.size();
  for (const GgufTensor& tensor : tensors) {
    const uint64_t bytes = tensor.type->bytes(tensor.elements());
    write_tensor(file, offset, tensor, pool, advance);
    if (tensor.done) tensor.done();
    const std::vector<std::byte> padding(aligned(bytes) - bytes);
    file.write_at(offset + bytes, padding);
    offset += aligned(bytes);
  }
  file.commit();
  return offset;
}

}  // namespace upg
