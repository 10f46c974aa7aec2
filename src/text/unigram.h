// Unigram: of all ways to cut a piece into tokens, the one with the greatest sum of scores.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "text/tokenizer_model.h"

namespace upg {

/// "vocab" is a list of [token, score]. `where` names the model in errors. Throws Error(kInvalidFile), also in encode()
/// for a character that no token has where there is no "unk_id".
std::unique_ptr<TokenModel> make_unigram(const nlohmann::json& json, std::string_view where);

/// A score as the JSON reader of Hugging Face tokenizers understands its shortest decimal form: one division or
/// multiplication by a power of ten away from the digits, which can miss the nearest number by a bit. Ties between ways
/// to cut a text depend on it.
double score_of_decimal(double value);

}  // namespace upg
