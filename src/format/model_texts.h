// The texts that travel with a model's weights, in a checkpoint directory and in a UPG file alike.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace upg {

/// Contents of the files of the same name; empty where the model has none.
struct ModelTexts {
  std::string config;                // config.json
  std::string generation_config;     // generation_config.json
  std::string tokenizer;             // tokenizer.json
  std::string tokenizer_config;      // tokenizer_config.json
  std::string chat_template;         // a Jinja template
  std::string vocabulary = {};       // where there is no tokenizer.json: its file of another form, which is not text,
  std::string vocabulary_file = {};  // and that file's name. UPG files have neither: see text/tokenizer_source.h
};

/// The tokens that end a text: "eos_token_id" of generation_config.json, else of config.json. `where` names the model
/// in errors. Throws Error(kInvalidFile) for what is not ids below `vocab_size`.
std::vector<int32_t> end_tokens(const ModelTexts& texts, const std::string& where, uint64_t vocab_size);

}  // namespace upg
