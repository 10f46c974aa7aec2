// Any bytes as a safetensors file and as a UPG file, once as they are and once with the header checksum made to fit, so
// that what lies behind it is reached too. Only upg::Error may escape.
#include <cstring>
#include <string_view>
#include <vector>

#include "format/convert.h"
#include "format/safetensors.h"
#include "format/upg_file.h"
#include "upg/error.h"

namespace {

void read_all(std::span<const std::byte> bytes) {
  try {
    const auto file = upg::SafetensorsFile::from_bytes(bytes, "fuzz");
    for (const upg::TensorView& view : file.tensors()) {
      std::vector<float> values(view.elements());
      if (upg::is_float_dtype(view.dtype)) upg::read_floats(view, 0, values);
    }
  } catch (const upg::Error&) {
  }
  try {
    const auto file = upg::UpgFile::from_bytes(bytes, "fuzz");
    for (const upg::UpgEntry& entry : file.entries()) (void)(entry.elements() + entry.stored_bytes());
    (void)file.texts();
    file.verify_checksums();
  } catch (const upg::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  read_all(bytes);
  uint64_t header_bytes = 0;
  if (size < sizeof(header_bytes)) return 0;
  std::memcpy(&header_bytes, data, sizeof(header_bytes));
  if (header_bytes > size - sizeof(header_bytes)) return 0;
  char* header = reinterpret_cast<char*>(bytes.data()) + sizeof(header_bytes);
  const std::string_view text(header, header_bytes);
  const size_t at = upg::find_header_checksum(text);
  if (at == std::string_view::npos) return 0;
  const std::string digits = upg::header_checksum(text, at);
  std::memcpy(header + at, digits.data(), digits.size());
  read_all(bytes);
  return 0;
}
