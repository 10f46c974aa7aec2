// Normalizers: rewrite the text before it is split.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace upg {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  /// `text` is valid UTF-8, and so is the result. Thread-safe.
  virtual std::string normalize(std::string_view text) const = 0;
};

/// The "normalizer" of a tokenizer.json: null or an object whose type is in the list. `where` names the field. Throws
/// Error(kInvalidFile / kUnsupported).
std::unique_ptr<Normalizer> make_normalizer(const nlohmann::json& json, std::string_view where);

}  // namespace upg
