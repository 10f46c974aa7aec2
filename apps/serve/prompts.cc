#include "prompts.h"

#include <fmt/format.h>

#include "generation_fields.h"
#include "limits.h"

namespace upg::serve {

std::vector<int32_t> read_tokens(const Json& list, uint64_t vocab_size, const std::string& where) {
  if (!list.is_array()) refuse_type(where, "an array of token ids", list);
  std::vector<int32_t> tokens;
  tokens.reserve(list.size());
  for (const Json& token : list) {
    const std::string place = fmt::format("{}[{}]", where, tokens.size());
    if (!token.is_number_integer()) refuse_type(place, "a token id", token);
    const auto id = token.get<double>();
    if (id < 0 || id >= static_cast<double>(vocab_size))
      refuse(where, fmt::format("{} is {}, which is outside the vocabulary of {}", place, token.dump(), vocab_size));
    tokens.push_back(static_cast<int32_t>(id));
  }
  return tokens;
}

std::vector<std::vector<int32_t>> read_prompts(const ServedModel& model, const Fields& fields, const char* name) {
  const Json* value = fields.find(name);
  if (value == nullptr) refuse(name, fmt::format("{} is missing", name));
  if (!value->is_string() && !value->is_array()) refuse_type(name, "a string or an array", *value);
  const uint64_t vocab = model.engine->info().vocab_size;
  const bool tokens = value->is_array() && !value->empty() && value->front().is_number();
  const bool several = value->is_array() && !tokens;
  if (several && value->size() > kMaxPrompts)
    refuse(name, fmt::format("{} has {} entries, {} are the limit", name, value->size(), kMaxPrompts));
  if (several && value->empty()) refuse(name, fmt::format("{} is empty", name));
  std::vector<std::vector<int32_t>> prompts;
  const size_t n = several ? value->size() : 1;
  for (size_t i = 0; i < n; ++i) {
    const Json& one = several ? (*value)[i] : *value;
    const std::string where = several ? fmt::format("{}[{}]", name, i) : name;
    if (!one.is_string() && !one.is_array()) refuse_type(where, "a string or an array of token ids", one);
    prompts.push_back(one.is_string() ? model.engine->tokenize(one.get<std::string>())
                                      : read_tokens(one, vocab, where));
    check_length(model, prompts.back(), where);
  }
  return prompts;
}

}  // namespace upg::serve
