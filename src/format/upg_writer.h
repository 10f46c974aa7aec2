// Writes UPG model files: the plan of all entries first, then their parts as they are encoded, then finish().
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/model_texts.h"
#include "format/safetensors_writer.h"

namespace upg {

struct UpgPlanPart {
  std::string suffix;  // letters, digits and '_'; "" stores the part under the entry's own name
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;
};

struct UpgPlanEntry {
  std::string name;
  std::string codec;
  uint32_t codec_version = 0;
  std::vector<uint64_t> shape;  // of the weight itself
  std::vector<UpgPlanPart> parts;
};

struct UpgPlan {
  std::string version = "3.0";  // the newest that any of its codecs needs
  std::string architecture;
  std::string producer;
  ModelTexts texts;
  std::vector<UpgPlanEntry> entries;
};

/// Not for use from several threads at once. Without finish() nothing appears at `path`.
class UpgWriter {
 public:
  /// Throws Error(kInvalidArgument) for a plan that a reader would refuse, and as AtomicFile does.
  UpgWriter(const std::string& path, UpgPlan plan);

  /// Appends to a part: all at once or in pieces, entries and parts in any order.
  void append(std::string_view entry, std::string_view suffix, std::span<const std::byte> data);

  /// ||decoded - original|| / ||original||: finite, not negative; stored with 7 significant digits.
  void set_relative_error(std::string_view entry, double error);

  /// Every part must be complete. `check` as in SafetensorsWriter::commit.
  void finish(const std::function<void(const std::string& path)>& check = {});

 private:
  std::string tensors_json(bool reserve) const;

  UpgPlan plan_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::vector<std::optional<double>> errors_;  // by entry
  std::vector<std::string> stored_names_;
  std::optional<SafetensorsWriter> writer_;
};

}  // namespace upg
