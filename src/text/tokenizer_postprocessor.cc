// The list of post-processors. Only single texts are encoded here, so templates for pairs are not read.
#include "text/tokenizer_postprocessor.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/tokenizer_json.h"

namespace upg {
namespace {

using nlohmann::json;

constexpr size_t kMaxSurroundingTokens = 1024;

void apply(const json& object, std::string_view where, int depth, Surroundings& around);

void apply_sequence(const json& object, std::string_view where, int depth, Surroundings& around) {
  const json& parts = array_member(object, "processors", where);
  check_steps(parts.size(), where);
  for (size_t i = 0; i < parts.size(); ++i)
    apply(parts[i], fmt::format("{}.processors[{}]", where, i), depth + 1, around);
}

// "single" is a list of {"SpecialToken": {"id": name}} and {"Sequence": {"id": "A"}}.
void apply_template(const json& object, std::string_view where, int, Surroundings& around) {
  const std::string names_path = field_path(where, "special_tokens");
  const json& pieces = array_member(object, "single", where);
  Surroundings added;
  bool text_seen = false;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const std::string path = fmt::format("{}.single[{}]", where, i);
    const json& sequence = member(pieces[i], "Sequence", path);
    if (!sequence.is_null()) {
      if (string_member(sequence, "id", path) != "A" || std::exchange(text_seen, true))
        fail(ErrorCode::kUnsupported, "{}: only one Sequence, with id \"A\", is supported", path);
      continue;
    }
    const std::string& name = string_member(member(pieces[i], "SpecialToken", path), "id", path + ".SpecialToken");
    const json& token = member(member(object, "special_tokens", where), name, names_path);
    const std::string token_path = field_path(names_path, name);
    for (const json& id : array_member(token, "ids", token_path))
      (text_seen ? added.after : added.before).push_back(token_id_of(id, token_path + ".ids"));
  }
  if (!text_seen) fail(ErrorCode::kUnsupported, "{}.single has no Sequence", where);
  around.before.insert(around.before.begin(), added.before.begin(), added.before.end());
  around.after.insert(around.after.end(), added.after.begin(), added.after.end());
  if (around.before.size() + around.after.size() > kMaxSurroundingTokens)
    fail(ErrorCode::kUnsupported, "{} adds more than {} tokens", where, kMaxSurroundingTokens);
}

// "cls" and "sep" are [name, id].
void apply_classes(const json& object, std::string_view where, int, Surroundings& around) {
  const auto id_of = [&](std::string_view key) {
    const json& pair = member(object, key, where);
    if (!pair.is_array() || pair.size() != 2)
      fail(ErrorCode::kInvalidFile, "{} must be [token, id]", field_path(where, key));
    return token_id_of(pair[1], field_path(where, key));
  };
  around.before.insert(around.before.begin(), id_of("cls"));
  around.after.push_back(id_of("sep"));
}

struct PostProcessorRow {
  std::string_view name;
  void (*apply)(const json& object, std::string_view where, int depth, Surroundings& around);
};
constexpr PostProcessorRow kPostProcessors[] = {
    {"Sequence", apply_sequence},
    {"TemplateProcessing", apply_template},
    {"RobertaProcessing", apply_classes},
    {"BertProcessing", apply_classes},
    {"ByteLevel", [](const json&, std::string_view, int, Surroundings&) {}},  // changes offsets only
};

void apply(const json& object, std::string_view where, int depth, Surroundings& around) {
  check_nesting(depth, where);
  row_for_type(kPostProcessors, object, where).apply(object, where, depth, around);
}

}  // namespace

Surroundings make_surroundings(const json& object, std::string_view where) {
  Surroundings around;
  if (!object.is_null()) apply(object, where, 0, around);
  return around;
}

}  // namespace upg
