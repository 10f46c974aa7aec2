#include "format/model_texts.h"

#include "base/error.h"
#include "format/json.h"

namespace upg {
namespace {

// "eos_token_id" of either file: absent, null, a number or an array of numbers.
void read_end_tokens(const std::string& text, const std::string& where, uint64_t vocab_size,
                     std::vector<int32_t>& out) {
  if (text.empty()) return;
  const nlohmann::json json = parse_json_object(text, where);
  if (!json.contains("eos_token_id") || json["eos_token_id"].is_null()) return;
  const nlohmann::json& field = json["eos_token_id"];
  const nlohmann::json list = field.is_array() ? field : nlohmann::json::array({field});
  for (const nlohmann::json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= vocab_size)
      fail(ErrorCode::kInvalidFile, "{}: eos_token_id has {}, must be ids below {}", where, id.dump(), vocab_size);
    out.push_back(id.get<int32_t>());
  }
}

}  // namespace

std::vector<int32_t> end_tokens(const ModelTexts& texts, const std::string& where, uint64_t vocab_size) {
  std::vector<int32_t> ids;
  read_end_tokens(texts.generation_config, where + ": generation_config.json", vocab_size, ids);
  if (ids.empty()) read_end_tokens(texts.config, where + ": config.json", vocab_size, ids);
  return ids;
}

}  // namespace upg
