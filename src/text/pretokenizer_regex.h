// Regular expressions of tokenizer.json (Oniguruma, Ruby syntax), run by PCRE2. Constructs whose meaning differs
// between the two are rewritten; those that cannot be are refused by name.
#pragma once

#include <cstddef>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace upg {

struct Match {
  size_t begin;
  size_t end;
  bool matched;  // false for the text between matches
};

/// The PCRE2 pattern that matches what Oniguruma matches for `pattern`. `where` names the field in errors.
std::string translate_regex(std::string_view pattern, std::string_view where);

class Regex {
 public:
  /// `literal` takes the pattern as plain text. Throws Error(kInvalidFile / kUnsupported) naming `where`.
  Regex(std::string_view pattern, bool literal, std::string_view where);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) = delete;

  /// Cuts `text` (valid UTF-8) into matches and what lies between, in order, covering all of it; an empty match gives
  /// an empty piece. Thread-safe. Throws Error(kInvalidFile) where the pattern needs unreasonable work on this text.
  void find_all(std::string_view text, std::vector<Match>& out) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
  std::string where_;
};

/// The member `key` of the object `json`: {"Regex": pattern} or {"String": text}.
Regex regex_member(const nlohmann::json& json, std::string_view key, std::string_view where);

}  // namespace upg
