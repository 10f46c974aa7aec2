#include "format/safetensors_writer.h"

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "base/error.h"
#include "base/tensor_view.h"
#include "format/json.h"
#include "format/safetensors.h"

namespace upg {

namespace {

constexpr uint64_t kDataAlignment = 64;
constexpr uint64_t kSizeBytes = 8;  // the header's size, before the header

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::map<std::string, std::string> metadata)
    : file_(path), metadata_(std::move(metadata)) {}

void SafetensorsWriter::declare(std::string name, DType dtype, std::vector<uint64_t> shape) {
  UPG_CHECK(header_bytes_ == 0);
  const auto elements = checked_product(shape);
  const auto bytes = elements ? checked_mul(*elements, dtype_info(dtype).bytes) : std::nullopt;
  if (!bytes)
    fail(ErrorCode::kInvalidArgument, "{}: tensor {:?}: shape {} overflows 64 bits", file_.path(), name,
         shape_string(shape));
  if (name == "__metadata__" || !by_name_.emplace(name, tensors_.size()).second)
    fail(ErrorCode::kInvalidArgument, "{}: tensor name {:?} is {}", file_.path(), name,
         name == "__metadata__" ? "reserved" : "used twice");
  Tensor tensor{};
  tensor.name = std::move(name);
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  tensor.bytes = *bytes;
  tensors_.push_back(std::move(tensor));
}

void SafetensorsWriter::lay_out() {
  if (header_bytes_ != 0) return;
  const auto alignment = [](const Tensor& tensor) -> uint64_t {
    return tensor.bytes % kDataAlignment == 0 ? kDataAlignment : dtype_info(tensor.dtype).bytes;
  };
  std::stable_sort(tensors_.begin(), tensors_.end(),
                   [&](const Tensor& a, const Tensor& b) { return alignment(a) > alignment(b); });
  uint64_t offset = 0;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    Tensor& tensor = tensors_[i];
    by_name_[tensor.name] = i;
    tensor.begin = offset;
    const auto end = checked_add(offset, tensor.bytes);
    if (!end || *end > (uint64_t{1} << 62))
      fail(ErrorCode::kInvalidArgument, "{}: the tensors together exceed 2^62 bytes", file_.path());
    offset = *end;
    if (tensor.bytes == 0) tensor.checksum = checksum_hex({});
  }
  header_bytes_ = ceil_div(kSizeBytes + header().size(), kDataAlignment) * kDataAlignment - kSizeBytes;
  if (header_bytes_ > kMaxSafetensorsHeader)
    fail(ErrorCode::kInvalidArgument, "{}: header of {} bytes is above the format's limit of {}", file_.path(),
         header_bytes_, kMaxSafetensorsHeader);
}

std::string SafetensorsWriter::header() const {
  std::string text = "{";
  if (!metadata_.empty()) text += "\"__metadata__\":" + json_text(metadata_, file_.path() + ": metadata");
  for (const Tensor& tensor : tensors_) {
    if (text.size() > 1) text += ',';
    text += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}",
                        json_text(tensor.name, file_.path() + ": tensor name"), dtype_info(tensor.dtype).name,
                        Json(tensor.shape).dump(), tensor.begin, tensor.begin + tensor.bytes);
  }
  return text + '}';
}

size_t SafetensorsWriter::index_of(std::string_view name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end())
    fail(ErrorCode::kInvalidArgument, "{}: tensor {:?} was not declared", file_.path(), name);
  return found->second;
}

void SafetensorsWriter::append(std::string_view name, std::span<const std::byte> data) {
  lay_out();
  Tensor& target = tensors_[index_of(name)];
  if (data.size() > target.bytes - target.written)
    fail(ErrorCode::kInvalidArgument, "{}: tensor {:?}: {} bytes more than the {} declared", file_.path(), name,
         data.size() - (target.bytes - target.written), target.bytes);
  if (data.empty()) return;
  file_.write_at(kSizeBytes + header_bytes_ + target.begin + target.written, data);
  if (!target.running) target.running.emplace();
  target.running->update(data);
  target.written += data.size();
  if (target.written == target.bytes) {
    target.checksum = target.running->hex();
    target.running.reset();
  }
}

void SafetensorsWriter::set_metadata(const std::string& key, std::string value) { metadata_[key] = std::move(value); }

std::string SafetensorsWriter::checksum(std::string_view name) const {
  const Tensor& target = tensors_[index_of(name)];
  if (target.written != target.bytes || target.checksum.empty())
    fail(ErrorCode::kInvalidArgument, "{}: tensor {:?}: {} of {} bytes were written", file_.path(), name,
         target.written, target.bytes);
  return target.checksum;
}

void SafetensorsWriter::commit(const std::function<void(std::string&)>& edit_header,
                               const std::function<void(const std::string&)>& check) {
  lay_out();
  for (const Tensor& each : tensors_) checksum(each.name);
  std::string text = header();
  if (text.size() > header_bytes_)
    fail(ErrorCode::kInvalidArgument, "{}: metadata grew: the header takes {} bytes, {} are reserved", file_.path(),
         text.size(), header_bytes_);
  text.resize(header_bytes_, ' ');
  if (edit_header) edit_header(text);
  UPG_CHECK(text.size() == header_bytes_);
  std::array<std::byte, kSizeBytes> size;
  for (size_t i = 0; i < kSizeBytes; ++i) size[i] = static_cast<std::byte>(header_bytes_ >> (8 * i));
  file_.write_at(0, size);
  file_.write_at(kSizeBytes, std::as_bytes(std::span(text)));
  if (check) check(file_.temporary_path());
  file_.commit();
}

}  // namespace upg
