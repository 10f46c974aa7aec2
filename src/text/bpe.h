// Byte pair encoding: repeatedly joins the neighbours whose merge stands first in the file's list.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "text/tokenizer_model.h"

namespace upg {

/// `where` names the model in errors. Throws Error(kInvalidFile) for merges of unknown tokens and the like, and
/// Error(kUnsupported) for dropout, continuing_subword_prefix and end_of_word_suffix.
std::unique_ptr<TokenModel> make_bpe(const nlohmann::json& json, std::string_view where);

}  // namespace upg
