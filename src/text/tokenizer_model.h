// The part of a tokenizer that turns one piece of text into token ids, and its vocabulary.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace upg {

/// Token contents as the file writes them (for byte-level models in the byte-level alphabet) and their ids.
class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  /// Reads an object {content: id}. Throws Error(kInvalidFile) for an id out of range or given twice.
  void read(const nlohmann::json& json, std::string_view where);
  /// Gives the tokens the ids 0, 1, 2... Of two equal contents the later counts.
  void assign(const std::vector<std::string_view>& contents);

  std::optional<int32_t> find(std::string_view content) const;
  /// nullopt for an id that no token has.
  std::optional<std::string_view> content(int32_t id) const;
  size_t count() const { return ids_.size(); }
  int32_t end() const { return static_cast<int32_t>(contents_.size()); }  // highest id + 1

 private:
  std::string arena_;  // all contents; the views below point into it
  std::unordered_map<std::string_view, int32_t> ids_;
  std::vector<std::string_view> contents_;  // by id; data() is nullptr for a hole
};

/// The ids of the tokens <0x00> to <0xFF>, -1 for those that are not there.
std::array<int32_t, 256> byte_tokens(const Vocabulary& vocabulary);

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  /// Appends the ids of `piece` (valid UTF-8, not empty). Thread-safe.
  virtual void encode(std::string_view piece, std::vector<int32_t>& out) const = 0;
  const Vocabulary& vocabulary() const { return vocabulary_; }

 protected:
  Vocabulary vocabulary_;
};

/// The "model" of a tokenizer.json. `where` names the field. Throws Error(kInvalidFile / kUnsupported).
std::unique_ptr<TokenModel> make_token_model(const nlohmann::json& json, std::string_view where);

}  // namespace upg
