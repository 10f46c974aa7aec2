// The normalization forms of Unicode as Hugging Face tokenizers has them, which are those of an old version.
#pragma once

#include <string>
#include <string_view>

namespace upg {

/// NFC, NFD, NFKC, NFKD.
struct NormalizationForm {
  bool compose;
  bool compatibility;
};

/// `text` is valid UTF-8. O(n log n), whatever the text.
std::string normalization_form(std::string_view text, NormalizationForm form);

/// The lower case of one character appended to `out`, without regard to its neighbours.
void append_lowercase(std::string& out, uint32_t code_point);

}  // namespace upg
