// A model file of some version, as weights that can be written to another: what convert() reads from.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "codec/codec.h"
#include "format/model_texts.h"

namespace upg {

/// A weight in the form that a UPG file stores.
struct StoredWeight {
  struct Part {
    std::string suffix;
    DType dtype;
    std::vector<uint64_t> shape;
    std::span<const std::byte> data;
    std::vector<std::byte> owned;  // what data shows, where the source holds it in another form
  };
  const Codec* codec = nullptr;
  std::vector<uint64_t> shape;  // of the weight itself
  std::vector<Part> parts;
  std::optional<double> relative_error;
  std::string note;  // for ConvertReport; empty: nothing to say

  uint64_t bytes() const;
};

/// A part that keeps its own bytes.
StoredWeight::Part owned_part(std::string suffix, DType dtype, std::vector<uint64_t> shape,
                              std::vector<std::byte> data);

class ConvertSource {
 public:
  struct Item {
    std::string name;
    uint64_t bytes = 0;  // in the source, for progress
  };

  virtual ~ConvertSource() = default;
  virtual std::string_view version() const = 0;
  virtual std::string_view form() const = 0;
  virtual const ModelTexts& texts() const = 0;
  virtual const std::vector<Item>& items() const = 0;
  /// The weight number `index`; its parts stay valid while the source lives. Called twice for each.
  virtual StoredWeight load(size_t index) const = 0;
};

/// Opens a file of any version. Throws Error.
std::unique_ptr<ConvertSource> open_source(const std::string& path);

/// The same weight in another codec of format 3.0, where that is smaller and decodes to the same bits.
StoredWeight smaller_exact_form(StoredWeight weight, std::string_view name);

}  // namespace upg
