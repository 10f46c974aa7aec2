// The texts that travel with a model's weights, in a checkpoint directory and in a UPG file alike.
#pragma once

#include <string>

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

}  // namespace upg
