// What a tokenizer.json is made of where a checkpoint has none.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace upg {

struct VocabularySource {
  std::string_view contents;
  std::string_view file_name;
  const nlohmann::json& config;            // config.json, an object
  const nlohmann::json& tokenizer_config;  // tokenizer_config.json, an object
  std::string_view where;                  // of the vocabulary file, in errors
};

}  // namespace upg
