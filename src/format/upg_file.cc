#include "format/upg_file.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "format/checksum.h"
#include "format/json.h"

namespace upg {

namespace {

constexpr std::array<std::string_view, 2> kKnownVersions = {"2.0", "3.0"};
constexpr size_t kMaxRank = 8;
constexpr std::string_view kDigitsOfZeros = "0000000000000000";
static_assert(kDigitsOfZeros.size() == kChecksumDigits);

bool by_name(const UpgEntry& entry, std::string_view name) { return entry.name < name; }

UpgEntry read_entry(const std::string& name, const Json& info, const std::string& file) {
  const auto refuse = [&](std::string_view problem) {
    fail(ErrorCode::kInvalidFile, "{}: {}: entry {:?}: {}", file, upg_key::kTensors, name, problem);
  };
  if (!info.is_object()) refuse("not a JSON object");
  const Json absent;
  const auto field = [&](const char* key) -> const Json& {
    const auto found = info.find(key);
    return found == info.end() ? absent : *found;
  };
  UpgEntry entry;
  entry.name = name;
  if (!field("codec").is_string()) refuse("\"codec\" is missing or not a string");
  entry.codec = field("codec").get<std::string>();
  const Json& version = field("codec_version");
  if (!version.is_number_unsigned() || version.get<uint64_t>() > UINT32_MAX)
    refuse("\"codec_version\" is missing or not a 32-bit number");
  entry.codec_version = version.get<uint32_t>();
  if (!read_sizes(field("shape"), entry.shape) || entry.shape.size() > kMaxRank || !checked_product(entry.shape))
    refuse("\"shape\" is not an array of at most 8 sizes whose product fits 64 bits");
  if (const Json& error = field("relative_error"); !error.is_null()) {
    if (!error.is_number() || !std::isfinite(error.get<double>()) || error.get<double>() < 0)
      refuse("\"relative_error\" is not a number of at least 0");
    entry.relative_error = error.get<double>();
  }
  return entry;
}

}  // namespace

uint64_t UpgEntry::elements() const { return *checked_product(shape); }

uint64_t UpgEntry::stored_bytes() const {
  uint64_t bytes = 0;
  for (const TensorView& part : parts) bytes += part.data.size();
  return bytes;
}

UpgFile UpgFile::open(const std::string& path) { return UpgFile(SafetensorsFile::open(path)); }

UpgFile UpgFile::from_bytes(std::span<const std::byte> bytes, std::string where) {
  return UpgFile(SafetensorsFile::from_bytes(bytes, std::move(where)));
}

UpgFile::UpgFile(SafetensorsFile file) : file_(std::move(file)) {
  if (!file_.metadata().contains(std::string(upg_key::kVersion)))
    fail(ErrorCode::kInvalidFile, "{}: a safetensors file, but not a UPG file: it has no metadata key \"{}\"",
         file_.where(), upg_key::kVersion);
  version_ = required(upg_key::kVersion);
  if (std::find(kKnownVersions.begin(), kKnownVersions.end(), version_) == kKnownVersions.end())
    fail(ErrorCode::kUnsupported, "{}: UPG version {:?}; this program reads {}. Use a newer program, or check the file",
         file_.where(), version_, "2.0 and 3.0");
  check_header_checksum();
  architecture_ = required(upg_key::kArchitecture);
  producer_ = text(upg_key::kProducer);
  const auto where = [&](std::string_view key) { return fmt::format("{}: {}", file_.where(), key); };
  required(upg_key::kConfig);
  for (const auto key : {upg_key::kConfig, upg_key::kGenerationConfig, upg_key::kTokenizerConfig})
    if (!text(key).empty()) parse_json_object(text(key), where(key));
  const TensorView* tokenizer = file_.find(kTokenizerTensor);
  if (tokenizer != nullptr && (tokenizer->dtype != DType::kU8 || tokenizer->shape.size() != 1))
    fail(ErrorCode::kInvalidFile, "{}: tensor \"{}\" is {} {}, expected U8 [bytes]", file_.where(), kTokenizerTensor,
         dtype_info(tokenizer->dtype).name, shape_string(tokenizer->shape));
  read_entries();
  assign_parts();
  read_checksums();
}

const std::string& UpgFile::text(std::string_view key) const {
  static const std::string empty;
  const auto found = file_.metadata().find(std::string(key));
  return found == file_.metadata().end() ? empty : found->second;
}

const std::string& UpgFile::required(std::string_view key) const {
  const std::string& value = text(key);
  if (value.empty()) fail(ErrorCode::kInvalidFile, "{}: metadata key \"{}\" is missing or empty", file_.where(), key);
  return value;
}

void UpgFile::check_header_checksum() const {
  const std::string& stored = required(upg_key::kHeaderChecksum);
  const size_t at = find_header_checksum(file_.header_json());
  if (at == std::string_view::npos)
    fail(ErrorCode::kInvalidFile,
         "{}: header: \"{}\" is not {} hexadecimal digits as a UPG writer puts them; was the file "
         "rewritten by another program?",
         file_.where(), upg_key::kHeaderChecksum, kChecksumDigits);
  if (stored != header_checksum(file_.header_json(), at))
    fail(ErrorCode::kInvalidFile,
         "{}: header checksum differs: the header is damaged, or was rewritten by another program", file_.where());
}

void UpgFile::read_entries() {
  const std::string where = fmt::format("{}: {}", file_.where(), upg_key::kTensors);
  const Json entries = parse_json_object(required(upg_key::kTensors), where);
  for (const auto& [name, info] : entries.items()) entries_.push_back(read_entry(name, info, file_.where()));
  std::sort(entries_.begin(), entries_.end(), [](const UpgEntry& a, const UpgEntry& b) { return a.name < b.name; });
}

void UpgFile::assign_parts() {
  for (const TensorView& tensor : file_.tensors()) {
    if (tensor.name == kTokenizerTensor) continue;
    if (!is_aligned(tensor))
      fail(ErrorCode::kInvalidFile, "{}: tensor {:?}: its data are not aligned to their {} elements", file_.where(),
           tensor.name, dtype_info(tensor.dtype).name);
    TensorView part = tensor;
    part.name.clear();
    const UpgEntry* owner = find(tensor.name);
    if (owner == nullptr) {
      const size_t dot = tensor.name.rfind('.');
      if (dot != std::string::npos && dot + 1 < tensor.name.size()) {
        owner = find(std::string_view(tensor.name).substr(0, dot));
        part.name = tensor.name.substr(dot + 1);
      }
    }
    if (owner == nullptr)
      fail(ErrorCode::kInvalidFile, "{}: tensor {:?} belongs to no entry of {}", file_.where(), tensor.name,
           upg_key::kTensors);
    entries_[static_cast<size_t>(owner - entries_.data())].parts.push_back(std::move(part));
  }
  for (const UpgEntry& entry : entries_)
    if (entry.parts.empty())
      fail(ErrorCode::kInvalidFile, "{}: entry {:?} of {} has no stored tensor", file_.where(), entry.name,
           upg_key::kTensors);
}

void UpgFile::read_checksums() {
  const std::string where = fmt::format("{}: {}", file_.where(), upg_key::kChecksums);
  const Json checksums = parse_json_object(required(upg_key::kChecksums), where);
  for (const auto& [name, digits] : checksums.items()) {
    if (file_.find(name) == nullptr)
      fail(ErrorCode::kInvalidFile, "{}: names {:?}, which is not a stored tensor", where, name);
    if (!digits.is_string() || digits.get_ref<const std::string&>().size() != kChecksumDigits)
      fail(ErrorCode::kInvalidFile, "{}: value of {:?} is not {} digits", where, name, kChecksumDigits);
    checksums_.emplace(name, digits.get<std::string>());
  }
  for (const TensorView& tensor : file_.tensors())
    if (!checksums_.contains(tensor.name))
      fail(ErrorCode::kInvalidFile, "{}: tensor {:?} has no checksum", where, tensor.name);
}

std::string_view UpgFile::tokenizer_json() const {
  const TensorView* tensor = file_.find(kTokenizerTensor);
  if (tensor == nullptr) return {};
  return {reinterpret_cast<const char*>(tensor->data.data()), tensor->data.size()};
}

ModelTexts UpgFile::texts() const {
  return {config(), generation_config(), std::string(tokenizer_json()), tokenizer_config(), chat_template()};
}

const UpgEntry* UpgFile::find(std::string_view name) const {
  const auto found = std::lower_bound(entries_.begin(), entries_.end(), name, by_name);
  return found != entries_.end() && found->name == name ? &*found : nullptr;
}

void UpgFile::verify_checksums(const std::function<void(uint64_t, uint64_t)>& progress) const {
  constexpr size_t kPiece = size_t{16} << 20;
  uint64_t done = 0, total = 0;
  for (const TensorView& tensor : file_.tensors()) total += tensor.data.size();
  for (const TensorView& tensor : file_.tensors()) {
    Checksum checksum;
    for (size_t at = 0; at < tensor.data.size(); at += kPiece) {
      const auto piece = tensor.data.subspan(at, std::min(kPiece, tensor.data.size() - at));
      checksum.update(piece);
      done += piece.size();
      if (progress) progress(done, total);
    }
    const std::string& stored = checksums_.find(tensor.name)->second;
    if (checksum.hex() != stored)
      fail(ErrorCode::kInvalidFile,
           "{}: tensor {:?}: checksum of its data is {}, the file says {}: the data are damaged", file_.where(),
           tensor.name, checksum.hex(), stored);
  }
}

bool is_upg_file(const std::string& path) {
  const MappedFile file(path);
  uint64_t header_bytes = 0;
  if (file.bytes().size() < sizeof(header_bytes)) return false;
  std::memcpy(&header_bytes, file.bytes().data(), sizeof(header_bytes));
  if (header_bytes > kMaxSafetensorsHeader) return false;
  const auto rest = file.bytes().subspan(sizeof(header_bytes));
  const std::string_view header(reinterpret_cast<const char*>(rest.data()),
                                std::min<uint64_t>(rest.size(), header_bytes));
  // Writers sort the keys: a file cut off in its header has lost the version, but not the architecture.
  const auto has = [&](std::string_view key) {
    return header.find(fmt::format("\"{}\":", key)) != std::string_view::npos;
  };
  return header.starts_with('{') && (has(upg_key::kVersion) || has(upg_key::kArchitecture));
}

size_t find_header_checksum(std::string_view header_json) {
  // Inside another JSON string the quotes would be escaped, so this matches the key itself only.
  const std::string key = fmt::format("\"{}\":\"", upg_key::kHeaderChecksum);
  const size_t found = header_json.find(key);
  if (found == std::string_view::npos) return found;
  const size_t at = found + key.size();
  if (at + kChecksumDigits >= header_json.size() || header_json[at + kChecksumDigits] != '"')
    return std::string_view::npos;
  const std::string_view digits = header_json.substr(at, kChecksumDigits);
  return digits.find_first_not_of("0123456789abcdef") == std::string_view::npos ? at : std::string_view::npos;
}

std::string header_checksum(std::string_view header_json, size_t digits_at) {
  Checksum checksum;
  checksum.update(std::as_bytes(std::span(header_json.substr(0, digits_at))));
  checksum.update(std::as_bytes(std::span(kDigitsOfZeros)));
  checksum.update(std::as_bytes(std::span(header_json.substr(digits_at + kChecksumDigits))));
  return checksum.hex();
}

}  // namespace upg
