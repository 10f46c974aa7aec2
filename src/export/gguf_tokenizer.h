// A tokenizer.json in GGUF's words: the vocabulary with scores or merges, special tokens, and the name of the
// pre-tokenizer that llama.cpp has in its code.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "export/gguf_writer.h"
#include "format/model_texts.h"

namespace upg {

struct GgufTokenizerSource {
  const ModelTexts& texts;
  std::string tokenizer;  // tokenizer.json, or one made of the model's vocabulary file; empty: there is none
  std::string where;
  uint64_t vocab = 0;  // rows of the embedding: ids without a token are filled up
};

/// Everything under "tokenizer.". Throws Error(kUnsupported) naming the part that llama.cpp has nothing for.
GgufMetadata gguf_tokenizer(const GgufTokenizerSource& source, std::vector<std::string>& notes);

}  // namespace upg
