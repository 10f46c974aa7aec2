// Byte pair encoding: repeatedly joins the neighbours whose merge stands first in the file's list.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "text/tokenizer_model.h"

namespace upg {

/// `where` names the model in errors. Throws Error(kInvalidFile) for merges of unknown tokens and the like, and
/// Error(kUnsupported) for dropout, continuing_subword_prefix and end_of_word_suffix.
std::unique_ptr<TokenModel> make_bpe(const nlohmann::json& json, std::string_view where);

/// Calls f with the two tokens of each of the "merges", in their order. Throws Error(kInvalidFile) naming one that is
/// not a string or pair of strings of known tokens.
void each_merge(const nlohmann::json& merges, const Vocabulary& vocabulary, std::string_view where,
                const std::function<void(std::string_view left, std::string_view right)>& f);

}  // namespace upg
