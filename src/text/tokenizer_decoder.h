// Decoders: the bytes that a token stands for.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace upg {

class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  /// `content` is a token as the file writes it (valid UTF-8).
  virtual std::string bytes(std::string_view content) const = 0;
};

/// The "decoder" of a tokenizer.json. `where` names the field. Throws Error(kInvalidFile / kUnsupported).
std::unique_ptr<TokenDecoder> make_token_decoder(const nlohmann::json& json, std::string_view where);

}  // namespace upg
