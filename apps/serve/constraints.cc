#include "constraints.h"

#include <fmt/format.h>

#include "chat_prompt.h"
#include "errors.h"
#include "limits.h"
#include "models.h"

namespace upg::serve {
namespace {

using Form = std::unique_ptr<GrammarSource>;

Form form(GrammarSource source) { return std::make_unique<GrammarSource>(std::move(source)); }

std::string text_of(const Json& value, const std::string& where) {
  if (!value.is_string()) refuse_type(where, "a string", value);
  return value.get<std::string>();
}

Form read_regex(const Json& value, const std::string& where) {
  return form(GrammarSource::regex(text_of(value, where)));
}
Form read_ebnf(const Json& value, const std::string& where) { return form(GrammarSource::ebnf(text_of(value, where))); }

// An object, or JSON in a string.
Form read_schema(const Json& value, const std::string& where) {
  if (value.is_string()) return form(GrammarSource::json_schema(value.get<std::string>()));
  if (!value.is_object() && !value.is_boolean()) refuse_type(where, "a JSON schema", value);
  return form(GrammarSource::json_schema(to_text(value)));
}

Form read_choice(const Json& value, const std::string& where) {
  if (!value.is_array()) refuse_type(where, "an array of strings", value);
  if (value.empty() || value.size() > kMaxFormChoices)
    refuse(where, fmt::format("{} must have from 1 to {} strings", where, kMaxFormChoices));
  std::vector<GrammarSource> parts;
  for (size_t i = 0; i < value.size(); ++i) {
    parts.push_back(GrammarSource::literal(text_of(value[i], fmt::format("{}[{}]", where, i))));
    if (parts.back().text.empty()) refuse(where, fmt::format("{}[{}] is empty", where, i));
  }
  return form(GrammarSource::choice(std::move(parts)));
}

Form read_flag_for_json(const Json& value, const std::string& where) {
  if (!value.is_boolean()) refuse_type(where, "a boolean", value);
  return value.get<bool>() ? form(GrammarSource::json_object()) : nullptr;
}

// {"type": "text" | "json_object" | "json_schema", ...}; `nested`: name, schema and strict are in "json_schema".
Form read_typed(const Json& value, const std::string& where, bool nested) {
  if (!value.is_object()) refuse_type(where, "an object", value);
  const Fields fields(value, where);
  const std::string type = fields.required_text("type");
  if (type == "text") return nullptr;
  if (type == "json_object") {
    const Json* schema = fields.object("schema");
    return schema == nullptr ? form(GrammarSource::json_object()) : read_schema(*schema, where + ".schema");
  }
  if (type != "json_schema")
    refuse(where, fmt::format("{}.type is \"{}\", must be text, json_object or json_schema", where, type));
  const Json* about = nested ? fields.object("json_schema") : &value;
  const std::string place = nested ? where + ".json_schema" : where;
  if (about == nullptr) refuse(place, fmt::format("{} is missing", place));
  const Fields details(*about, place);
  details.text("name");
  details.flag("strict");
  const Json* schema = details.object("schema");
  if (schema == nullptr) refuse(place + ".schema", fmt::format("{}.schema is missing", place));
  return read_schema(*schema, place + ".schema");
}

Form read_response_format(const Json& value, const std::string& where) { return read_typed(value, where, true); }
Form read_flat_format(const Json& value, const std::string& where) { return read_typed(value, where, false); }

// `first`: the name of the field that asks for it.
Form read_one(const Fields& fields, std::span<const FormField> forms, std::string& first) {
  Form found;
  for (const FormField& field : forms) {
    const Json* value = fields.find(field.name);
    if (value == nullptr) continue;
    const std::string where = fields.path(field.name);
    Form read = field.read(*value, where);
    if (!read) continue;
    if (found) refuse(where, fmt::format("{} and {} cannot both say what the answer must be", first, where));
    found = std::move(read);
    first = where;
  }
  return found;
}

constexpr FormField kStructured[] = {
    {"json", read_schema},  {"json_object", read_flag_for_json}, {"regex", read_regex}, {"choice", read_choice},
    {"grammar", read_ebnf},
};

Form read_structured(const Json& value, const std::string& where) {
  if (!value.is_object()) refuse_type(where, "an object", value);
  std::string first;
  return read_one(Fields(value, where), kStructured, first);
}

constexpr FormField kFormatOfConfig[] = {{"format", read_flat_format}};

Form read_output_config(const Json& value, const std::string& where) {
  if (!value.is_object()) refuse_type(where, "an object", value);
  std::string first;
  return read_one(Fields(value, where), kFormatOfConfig, first);
}

constexpr FormField kOpenAi[] = {
    {"response_format", read_response_format},
    {"structured_outputs", read_structured},
    {"guided_json", read_schema},
    {"guided_regex", read_regex},
    {"guided_choice", read_choice},
    {"guided_grammar", read_ebnf},
    {"json_schema", read_schema},
    {"grammar", read_ebnf},
};
constexpr FormField kResponses[] = {{"format", read_flat_format}};
constexpr FormField kMessages[] = {{"output_config", read_output_config}, {"output_format", read_flat_format}};

std::shared_ptr<const Grammar> compile(const ServedModel& model, const GrammarSource& source,
                                       const std::string& field) {
  try {
    return Grammar::compile(*model.engine, source);
  } catch (const Error& error) {
    RequestError refused = as_request_error(error);
    throw RequestError(refused.status, fmt::format("{}: {}", field, refused.what()), field, refused.code);
  }
}

// The arguments of a call. A tool that is not "strict" gets what of its schema can be enforced.
GrammarSource arguments_of(const Json& tool) {
  const Json& function = tool["function"];
  const auto schema = function.find("parameters");
  if (schema == function.end() || !schema->is_object()) return GrammarSource::json_object();
  const auto strict = function.find("strict");
  Json typed = *schema;
  bool shaped = false;
  for (const char* keyword : {"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"})
    shaped |= typed.contains(keyword);
  if (!shaped) typed["type"] = "object";
  return GrammarSource::json_schema(to_text(typed), /*relaxed=*/strict == function.end() || *strict != true);
}

}  // namespace

std::span<const FormField> openai_forms() { return kOpenAi; }
std::span<const FormField> responses_forms() { return kResponses; }
std::span<const FormField> messages_forms() { return kMessages; }

std::shared_ptr<const Grammar> read_form(const ServedModel& model, const Fields& fields,
                                         std::span<const FormField> forms) {
  std::string field;
  const Form source = read_one(fields, forms, field);
  return source ? compile(model, *source, field) : nullptr;
}

std::shared_ptr<const Grammar> call_grammar(const ServedModel& model, const ChatPrompt& prompt) {
  if (prompt.prefix.empty()) return nullptr;
  std::vector<GrammarSource> calls;
  for (const Json& tool : prompt.callable) {
    std::vector<GrammarSource> parts;
    if (!prompt.named)
      parts.push_back(GrammarSource::literal(tool["function"]["name"].get<std::string>() + call_middle(*model.tools)));
    parts.push_back(arguments_of(tool));
    parts.push_back(GrammarSource::literal("}"));
    calls.push_back(GrammarSource::sequence(std::move(parts)));
  }
  return compile(model, GrammarSource::choice(std::move(calls)), "tools");
}

}  // namespace upg::serve
