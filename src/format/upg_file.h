// Opens UPG model files: a safetensors file whose metadata says what each stored tensor is part of. Codecs are names
// here; what the parts mean is the codec layer's business.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor_view.h"
#include "format/model_texts.h"
#include "format/safetensors.h"

namespace upg {

/// One weight of the model: a matrix in some codec, or a dense tensor of any rank.
struct UpgEntry {
  std::string name;
  std::string codec;
  uint32_t codec_version = 0;
  std::vector<uint64_t> shape;           // of the weight itself: [rows, cols] for a matrix; its product fits 64 bits
  std::optional<double> relative_error;  // ||decoded - original|| / ||original||, where the encoder measured it
  std::vector<TensorView> parts;  // named by suffix: "codes" for NAME.codes, "" for a tensor stored as NAME itself

  uint64_t elements() const;
  uint64_t stored_bytes() const;
};

/// Metadata keys; docs/format.md describes their values.
namespace upg_key {
inline constexpr std::string_view kVersion = "upg.version";
inline constexpr std::string_view kArchitecture = "upg.architecture";
inline constexpr std::string_view kConfig = "upg.config";
inline constexpr std::string_view kGenerationConfig = "upg.generation_config";
inline constexpr std::string_view kTokenizerConfig = "upg.tokenizer_config";
inline constexpr std::string_view kChatTemplate = "upg.chat_template";
inline constexpr std::string_view kTensors = "upg.tensors";
inline constexpr std::string_view kChecksums = "upg.checksums";
inline constexpr std::string_view kHeaderChecksum = "upg.header_checksum";
inline constexpr std::string_view kProducer = "upg.producer";
}  // namespace upg_key
inline constexpr std::string_view kTokenizerTensor = "upg.tokenizer";  // tokenizer.json, as U8 [bytes]

/// An open UPG file. Opening checks the header's checksum, version, every metadata value, and that each stored tensor
/// belongs to exactly one entry; parts are aligned to their elements. Tensor data is not read: see verify_checksums().
/// Views stay valid while the object (or one moved from it) lives.
class UpgFile {
 public:
  /// Throws Error(kNotFound), Error(kIo), Error(kInvalidFile), or Error(kUnsupported) for an unknown version.
  static UpgFile open(const std::string& path);
  static UpgFile from_bytes(std::span<const std::byte> bytes, std::string where);

  const std::string& version() const { return version_; }            // "2.0" or "3.0"
  const std::string& architecture() const { return architecture_; }  // as in config.json's "architectures"
  const std::string& producer() const { return producer_; }
  const std::string& config() const { return text(upg_key::kConfig); }
  const std::string& generation_config() const { return text(upg_key::kGenerationConfig); }
  const std::string& tokenizer_config() const { return text(upg_key::kTokenizerConfig); }
  const std::string& chat_template() const { return text(upg_key::kChatTemplate); }
  /// tokenizer.json in place, not validated; empty where the file carries none.
  std::string_view tokenizer_json() const;
  /// Copies of all of the above.
  ModelTexts texts() const;

  /// Sorted by name.
  const std::vector<UpgEntry>& entries() const { return entries_; }
  /// nullptr where there is no such entry.
  const UpgEntry* find(std::string_view name) const;

  uint64_t file_bytes() const { return file_.file_bytes(); }
  const SafetensorsFile& safetensors() const { return file_; }

  /// Reads every byte. Throws Error(kInvalidFile) naming the first tensor whose checksum differs. `progress`, if given,
  /// is called with bytes done and in all, and may throw to cancel.
  void verify_checksums(const std::function<void(uint64_t done, uint64_t total)>& progress = {}) const;

 private:
  explicit UpgFile(SafetensorsFile file);
  const std::string& text(std::string_view key) const;  // empty where absent
  const std::string& required(std::string_view key) const;
  void check_header_checksum() const;
  void read_entries();
  void assign_parts();
  void read_checksums();

  SafetensorsFile file_;
  std::string version_;
  std::string architecture_;
  std::string producer_;
  std::vector<UpgEntry> entries_;
  std::map<std::string, std::string, std::less<>> checksums_;  // by stored tensor
};

/// Whether the file's header has UPG's keys; nothing else is checked, and a truncated UPG file is still one.
/// Throws Error(kNotFound) or Error(kIo).
bool is_upg_file(const std::string& path);

/// Position of the 16 digits of upg.header_checksum in a header written by UpgWriter; npos where there are none.
size_t find_header_checksum(std::string_view header_json);
/// The header's checksum: of its bytes with those digits replaced by '0'.
std::string header_checksum(std::string_view header_json, size_t digits_at);

}  // namespace upg
