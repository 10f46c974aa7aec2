// SentencePiece's model files (a protobuf message ModelProto), BPE and unigram.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "text/vocabulary_source.h"

namespace upg {

/// Whether the bytes begin as such a file does: with a piece.
bool is_sentencepiece_model(std::string_view bytes);

/// A tokenizer.json of the same pieces, built as the published ones are: scores of BPE become an order of merges,
/// spaces become U+2581, control and user-defined pieces become added tokens. Which of BOS and EOS go around a text is
/// tokenizer_config.json's to say, else config.json's family's. Throws Error(kInvalidFile / kUnsupported).
nlohmann::json sentencepiece_tokenizer(const VocabularySource& source);

}  // namespace upg
