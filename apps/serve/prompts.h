// A text, tokens, or a list of either: the prompts of /v1/completions and the inputs of /v1/embeddings.
#pragma once

#include <cstdint>
#include <vector>

#include "json_reader.h"
#include "models.h"

namespace upg::serve {

/// Of the field `name`. Refuses ids that are none of the model's, and prompts longer than its context.
std::vector<std::vector<int32_t>> read_prompts(const ServedModel& model, const Fields& fields, const char* name);

/// An array of token ids.
std::vector<int32_t> read_tokens(const Json& list, uint64_t vocab_size, const std::string& where);

}  // namespace upg::serve
