// Where a model's tokenizer.json comes from: older checkpoints have only a SentencePiece model or a tiktoken rank file,
// of which one is made.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "format/model_texts.h"

namespace upg {

/// The text of the model's tokenizer.json, or of one made of the vocabulary file that it has instead; empty where it
/// has neither. `where` names the checkpoint in errors. Throws Error(kInvalidFile), Error(kUnsupported) for a rank file
/// of a family that is not in the list.
std::string tokenizer_json(const ModelTexts& texts, std::string_view where);

/// "added_tokens" of a tokenizer.json: those that tokenizer_config.json lists by id, else `fallback`.
nlohmann::json added_tokens_of(const nlohmann::json& tokenizer_config, nlohmann::json fallback, std::string_view where);
/// One of them: found as it is written, and special.
nlohmann::json special_token(int32_t id, std::string_view content);
/// A post-processor that puts the tokens around a text; null for none.
nlohmann::json surrounding_template(const nlohmann::json& before, const nlohmann::json& after);

}  // namespace upg
