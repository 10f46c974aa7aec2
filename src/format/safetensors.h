// Reads safetensors files without copying tensor data. Every rule of the format is checked before a view is handed out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "base/tensor_view.h"

namespace upg {

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;  // bytes; the limit of the reference implementation

/// An open safetensors file. Views stay valid while the object (or one moved from it) lives.
/// Tensors may start at any byte: the format does not align them. Files of SafetensorsWriter are aligned; for others
/// ask is_aligned() before TensorView::as(), or use memcpy.
class SafetensorsFile {
 public:
  /// Maps the file. Throws Error(kNotFound), Error(kIo), or Error(kInvalidFile) naming file, tensor and field.
  static SafetensorsFile open(const std::string& path);
  /// Reads from memory, which must outlive the object. `where` begins the messages.
  static SafetensorsFile from_bytes(std::span<const std::byte> bytes, std::string where);

  SafetensorsFile(SafetensorsFile&&) = default;
  SafetensorsFile(const SafetensorsFile&) = delete;

  /// In the order of their data.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  /// nullptr where there is no such tensor.
  const TensorView* find(std::string_view name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  uint64_t file_bytes() const { return bytes_.size(); }
  /// The header's JSON text with its padding.
  std::string_view header_json() const { return header_; }
  /// The path, or what from_bytes() was given.
  const std::string& where() const { return where_; }

 private:
  SafetensorsFile() = default;
  void parse();

  std::unique_ptr<MappedFile> mapping_;
  std::span<const std::byte> bytes_;
  std::string where_;
  std::string_view header_;
  std::vector<TensorView> tensors_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<std::string, std::string> metadata_;
};

/// Whether the data may be read as an array of its element type.
bool is_aligned(const TensorView& view);

}  // namespace upg
