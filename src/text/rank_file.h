// tiktoken's rank files: lines of a token in base64 and its rank. What else a tokenizer needs is a row of a list, by
// the file's name and the model's family.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "text/vocabulary_source.h"

namespace upg {

/// A tokenizer.json that encodes as tiktoken does with these ranks. Throws Error(kInvalidFile) naming the line,
/// Error(kUnsupported) where no row fits.
nlohmann::json rank_tokenizer(const VocabularySource& source);

}  // namespace upg
