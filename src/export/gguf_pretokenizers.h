// THE list of pre-tokenizers of byte-level BPE that llama.cpp has in its code, by the name that a file says.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace upg {

/// The name for the "pre_tokenizer" of a tokenizer.json. `ignore_merges`: pieces that are tokens are not cut further.
/// Throws Error(kUnsupported) quoting the patterns where llama.cpp has nothing that cuts texts as they do.
std::string_view gguf_pretokenizer(const nlohmann::json& pre_tokenizer, bool ignore_merges, std::string_view where);

/// Whether it ends in the alphabet of bytes.
bool is_byte_level(const nlohmann::json& pre_tokenizer);

}  // namespace upg
