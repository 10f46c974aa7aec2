#include "convert/source.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/mapped_file.h"
#include "codec/codec_table.h"
#include "codec/int8.h"
#include "codec/mdcsr.h"
#include "convert/legacy_model.h"
#include "format/upg_file.h"

namespace upg {
namespace {

class UpgSource : public ConvertSource {
 public:
  explicit UpgSource(const std::string& path) : file_(UpgFile::open(path)), texts_(file_.texts()) {
    for (const UpgEntry& entry : file_.entries()) items_.push_back({entry.name, entry.stored_bytes()});
  }

  std::string_view version() const override { return file_.version(); }
  std::string_view form() const override { return "a UPG file"; }
  const ModelTexts& texts() const override { return texts_; }
  const std::vector<Item>& items() const override { return items_; }

  StoredWeight load(size_t index) const override {
    const UpgEntry& entry = file_.entries().at(index);
    StoredWeight weight{&find_codec(entry.codec), entry.shape, {}, entry.relative_error, {}};
    if (entry.codec_version != weight.codec->version)
      fail(ErrorCode::kUnsupported, "{}: is in version {} of codec {}; this program reads version {}", entry.name,
           entry.codec_version, entry.codec, weight.codec->version);
    for (const TensorView& part : entry.parts)
      weight.parts.push_back({part.name, part.dtype, part.shape, part.data, {}});
    return weight;
  }

 private:
  UpgFile file_;
  ModelTexts texts_;
  std::vector<Item> items_;
};

class LegacySource : public LegacyModel {
 public:
  LegacySource(std::unique_ptr<MappedFile> file, const std::string& path)
      : LegacyModel(file->bytes(), path), file_(std::move(file)) {}

 private:
  std::unique_ptr<MappedFile> file_;
};

// A row of int8 has a value for every column: the same weights where MdCSR keeps over half of them.
std::optional<StoredWeight> int8_form(const StoredWeight& weight, std::string_view name) {
  std::vector<TensorView> parts;
  for (const StoredWeight::Part& part : weight.parts) parts.push_back({part.suffix, part.dtype, part.shape, part.data});
  const uint64_t rows = weight.shape.at(0), cols = weight.shape.at(1);
  const Matrix matrix = weight.codec->open(name, rows, cols, parts);
  const MdcsrView& view = mdcsr_view(matrix);
  if (kInt8Codec.stored_bytes(rows, cols, 1) >= weight.bytes()) return std::nullopt;
  for (uint64_t r = 0; r < rows; ++r)
    if (std::signbit(view.scales[r])) return std::nullopt;  // columns without entry would become negative zeros
  std::vector<std::byte> values(rows * cols), scales(rows * sizeof(float));
  if (rows > 0) std::memcpy(scales.data(), view.scales, scales.size());
  for (uint64_t r = 0; r < rows; ++r) {
    uint64_t column = 0;
    for (uint64_t k = view.row_pointers[r]; k < view.row_pointers[r + 1]; ++k) {
      column += view.delta_indices[k];
      if (view.values[k] != kSkipValue) values[r * cols + column] = static_cast<std::byte>(view.values[k]);
    }
  }
  StoredWeight result{&kInt8Codec, weight.shape, {}, weight.relative_error, weight.note};
  result.parts.push_back(owned_part("values", DType::kI8, {rows, cols}, std::move(values)));
  result.parts.push_back(owned_part("scales", DType::kF32, {rows}, std::move(scales)));
  return result;
}

struct ExactForm {
  const Codec* from;
  std::optional<StoredWeight> (*make)(const StoredWeight& weight, std::string_view name);
};

constexpr ExactForm kExactForms[] = {{&kMdcsrCodec, int8_form}};

}  // namespace

uint64_t StoredWeight::bytes() const {
  uint64_t bytes = 0;
  for (const Part& part : parts) bytes += part.data.size();
  return bytes;
}

StoredWeight::Part owned_part(std::string suffix, DType dtype, std::vector<uint64_t> shape,
                              std::vector<std::byte> data) {
  StoredWeight::Part part{std::move(suffix), dtype, std::move(shape), {}, std::move(data)};
  part.data = part.owned;  // moving a vector leaves its bytes where they are
  return part;
}

std::unique_ptr<ConvertSource> open_source(const std::string& path) {
  auto file = std::make_unique<MappedFile>(path);
  // A safetensors header's size is below 100 MB, so bytes 4 to 7 are zeros and byte 8 opens the JSON: no pickle or
  // archive begins so.
  const std::span<const std::byte> bytes = file->bytes();
  const bool safetensors = bytes.size() > 8 && bytes[8] == std::byte{'{'} && bytes[4] == std::byte{0} &&
                           bytes[5] == std::byte{0} && bytes[6] == std::byte{0} && bytes[7] == std::byte{0};
  if (safetensors) return std::make_unique<UpgSource>(path);
  if (bytes.empty()) fail(ErrorCode::kInvalidFile, "{}: is empty", path);
  return std::make_unique<LegacySource>(std::move(file), path);
}

StoredWeight smaller_exact_form(StoredWeight weight, std::string_view name) {
  for (const ExactForm& form : kExactForms) {
    if (form.from != weight.codec) continue;
    if (auto smaller = form.make(weight, name)) return std::move(*smaller);
  }
  return weight;
}

}  // namespace upg
