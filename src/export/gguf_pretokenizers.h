// THE list of pre-tokenizers of byte-level BPE that llama.cpp has in its code, by the name that a file says.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>
#include <vector>

namespace upg {

struct GgufPreTokenizer {
  std::string_view name;
  bool whole_first;                     // pieces that are tokens are not cut further
  std::vector<std::string_view> steps;  // what texts are cut at, one after the other
  std::string_view note = {};           // where llama.cpp cuts them otherwise
};

/// The row for the "pre_tokenizer" of a tokenizer.json. `whole_first`: as in the row; `matters`: it makes a difference,
/// so that no row with the other will do. Throws Error(kUnsupported) quoting the patterns where llama.cpp has nothing
/// that cuts texts as they do.
const GgufPreTokenizer& gguf_pretokenizer(const nlohmann::json& pre_tokenizer, bool whole_first, bool matters,
                                          std::string_view where);

/// Whether a step of it spells texts in the alphabet of bytes.
bool is_byte_level(const nlohmann::json& pre_tokenizer);

}  // namespace upg
