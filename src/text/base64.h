// Base64 (RFC 4648), as tokenizer files use it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace upg {

/// nullopt for what is not base64 with its padding.
std::optional<std::string> decode_base64(std::string_view text);
std::string encode_base64(std::string_view bytes);

}  // namespace upg
