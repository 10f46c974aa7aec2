// Normalizers: rewrite the text before it is split.
#pragma once

#include <cstddef>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace upg {

/// A text on its way through the normalizers.
struct NormalizedText {
  std::string text;  // valid UTF-8
  /// Leading bytes that come from the first character of the whole original text: the Metaspace pre-tokenizer asks.
  size_t at_start = 0;
};

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  /// Thread-safe. Throws Error(kInvalidFile) where the file's rules make unreasonably much of this text.
  virtual void normalize(NormalizedText& text) const = 0;

  std::string normalized(std::string_view text) const {
    NormalizedText whole{std::string(text)};
    normalize(whole);
    return std::move(whole.text);
  }
};

/// Builds a normalizer's result, in order, and keeps `at_start` right.
class Rewriter {
 public:
  explicit Rewriter(const NormalizedText& from) : from_(from) { out_.text.reserve(from.text.size() + 8); }

  /// Appends `text`, which stands for the character of the old text whose byte `source` is. Throws Error(kInvalidFile)
  /// when the result gets out of proportion.
  void put(std::string_view text, size_t source) {
    out_.text += text;
    if (source < from_.at_start) out_.at_start = out_.text.size();
    if (out_.text.size() > kMaxGrowth * (from_.text.size() + 1024)) refuse();
  }
  NormalizedText take() { return std::move(out_); }

 private:
  static constexpr size_t kMaxGrowth = 64;
  [[noreturn]] void refuse() const;

  const NormalizedText& from_;
  NormalizedText out_;
};

/// The "normalizer" of a tokenizer.json: null or an object whose type is in the list. `where` names the field. Throws
/// Error(kInvalidFile / kUnsupported).
std::unique_ptr<Normalizer> make_normalizer(const nlohmann::json& json, std::string_view where);

}  // namespace upg
