#include "format/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <tuple>

#include "base/checked.h"
#include "base/error.h"
#include "format/json.h"

namespace upg {

// The format is little-endian, and views show its bytes as they are.
static_assert(std::endian::native == std::endian::little);

namespace {

constexpr int kMaxHeaderDepth = 8;  // the format needs 3; unknown fields may have some of their own

/// One tensor's header fields, checked against each other and against the size of the data.
TensorView read_tensor(const std::string& name, const Json& info, std::span<const std::byte> data,
                       const std::string& file) {
  const auto where = [&] { return fmt::format("{}: tensor {:?}", file, name); };
  const auto field = [&](const char* key) -> const Json& {
    const auto found = info.find(key);
    if (found == info.end()) fail(ErrorCode::kInvalidFile, "{}: field \"{}\" is missing", where(), key);
    return *found;
  };
  if (!info.is_object()) fail(ErrorCode::kInvalidFile, "{}: its header entry is not a JSON object", where());

  TensorView view;
  view.name = name;
  const Json& dtype_field = field("dtype");
  if (!dtype_field.is_string()) fail(ErrorCode::kInvalidFile, "{}: \"dtype\" is not a string", where());
  const DTypeInfo* dtype = find_dtype(dtype_field.get_ref<const std::string&>());
  if (dtype == nullptr)
    fail(ErrorCode::kUnsupported, "{}: unknown dtype {:?}", where(), dtype_field.get_ref<const std::string&>());
  view.dtype = dtype->type;
  if (!read_sizes(field("shape"), view.shape))
    fail(ErrorCode::kInvalidFile, "{}: \"shape\" is not an array of non-negative integers", where());

  std::vector<uint64_t> offsets;
  if (!read_sizes(field("data_offsets"), offsets) || offsets.size() != 2)
    fail(ErrorCode::kInvalidFile, "{}: \"data_offsets\" is not an array of two non-negative integers", where());
  const uint64_t begin = offsets[0], end = offsets[1];
  if (begin > end)
    fail(ErrorCode::kInvalidFile, "{}: data_offsets [{}, {}] end before they begin", where(), begin, end);
  if (end > data.size())
    fail(ErrorCode::kInvalidFile,
         "{}: data_offsets [{}, {}] reach beyond the {} bytes of data in the file; is the file truncated?", where(),
         begin, end, data.size());

  const auto elements = checked_product(view.shape);
  const auto bytes = elements ? checked_mul(*elements, dtype->bytes) : std::nullopt;
  if (!bytes) fail(ErrorCode::kInvalidFile, "{}: shape {} overflows 64 bits", where(), shape_string(view.shape));
  if (*bytes != end - begin)
    fail(ErrorCode::kInvalidFile, "{}: {} of shape {} takes {} bytes, but data_offsets give it {}", where(),
         dtype->name, shape_string(view.shape), *bytes, end - begin);
  view.data = data.subspan(begin, end - begin);
  return view;
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  SafetensorsFile file;
  file.mapping_ = std::make_unique<MappedFile>(path);
  file.bytes_ = file.mapping_->bytes();
  file.where_ = path;
  file.parse();
  return file;
}

SafetensorsFile SafetensorsFile::from_bytes(std::span<const std::byte> bytes, std::string where) {
  SafetensorsFile file;
  file.bytes_ = bytes;
  file.where_ = std::move(where);
  file.parse();
  return file;
}

void SafetensorsFile::parse() {
  uint64_t header_bytes = 0;
  if (bytes_.size() < sizeof(header_bytes))
    fail(ErrorCode::kInvalidFile, "{}: {} bytes is too short for a safetensors file; is it truncated?", where_,
         bytes_.size());
  std::memcpy(&header_bytes, bytes_.data(), sizeof(header_bytes));
  const std::span<const std::byte> rest = bytes_.subspan(sizeof(header_bytes));
  if (header_bytes > kMaxSafetensorsHeader)
    fail(ErrorCode::kInvalidFile, "{}: header size {} is above the limit of {} bytes; this is not a safetensors file",
         where_, header_bytes, kMaxSafetensorsHeader);
  if (header_bytes > rest.size())
    fail(ErrorCode::kInvalidFile, "{}: header of {} bytes does not fit the file's {} bytes; is it truncated?", where_,
         header_bytes, bytes_.size());
  header_ = std::string_view(reinterpret_cast<const char*>(rest.data()), header_bytes);
  if (!header_.starts_with('{'))
    fail(ErrorCode::kInvalidFile, "{}: header does not begin with '{{'; this is not a safetensors file", where_);
  const std::span<const std::byte> data = rest.subspan(header_bytes);

  const std::string where = where_ + ": header";
  const Json header = parse_json_object(header_, where, kMaxHeaderDepth);
  for (const auto& [name, info] : header.items()) {
    if (name != "__metadata__") {
      tensors_.push_back(read_tensor(name, info, data, where_));
      continue;
    }
    if (!info.is_object()) fail(ErrorCode::kInvalidFile, "{}: \"__metadata__\" is not a JSON object", where);
    for (const auto& [key, value] : info.items()) {
      if (!value.is_string())
        fail(ErrorCode::kInvalidFile, "{}: value of metadata key {:?} is not a string", where, key);
      metadata_.emplace(key, value.get_ref<const std::string&>());
    }
  }

  std::sort(tensors_.begin(), tensors_.end(), [](const TensorView& a, const TensorView& b) {
    return std::tuple(a.data.data(), a.data.size(), std::string_view(a.name)) <
           std::tuple(b.data.data(), b.data.size(), std::string_view(b.name));
  });
  uint64_t expected = 0;
  for (const TensorView& view : tensors_) {
    const uint64_t begin = static_cast<uint64_t>(view.data.data() - data.data());
    if (begin < expected)
      fail(ErrorCode::kInvalidFile,
           "{}: tensor {:?}: its data at byte {} overlaps the previous tensor's, which end at {}", where_, view.name,
           begin, expected);
    if (begin > expected)
      fail(ErrorCode::kInvalidFile, "{}: tensor {:?}: its data begin at byte {}, leaving a hole from {} on", where_,
           view.name, begin, expected);
    expected = begin + view.data.size();
  }
  if (expected != data.size())
    fail(ErrorCode::kInvalidFile, "{}: {} bytes follow the last tensor's data", where_, data.size() - expected);
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

bool is_aligned(const TensorView& view) {
  return reinterpret_cast<uintptr_t>(view.data.data()) % dtype_info(view.dtype).bytes == 0;
}

}  // namespace upg
