#include "grammar/schema_keywords.h"

#include <algorithm>
#include <iterator>

namespace upg::grammar {
namespace {

constexpr uint8_t kNumbers = kInteger | kNumber;

constexpr Keyword kKeywords[] = {
    {"title", Use::kNote},
    {"description", Use::kNote},
    {"default", Use::kNote},
    {"example", Use::kNote},
    {"examples", Use::kNote},
    {"deprecated", Use::kNote},
    {"readOnly", Use::kNote},
    {"writeOnly", Use::kNote},
    {"discriminator", Use::kNote},  // OpenAPI's hint beside oneOf, which says the same
    {"externalDocs", Use::kNote},
    {"xml", Use::kNote},
    {"$comment", Use::kNote},
    {"$schema", Use::kNote},
    {"$anchor", Use::kNote},
    {"$defs", Use::kNote},
    {"definitions", Use::kNote},
    {"$ref", Use::kShape},
    {"const", Use::kShape},
    {"enum", Use::kShape},
    {"anyOf", Use::kShape},
    {"oneOf", Use::kShape},
    {"allOf", Use::kShape},
    {"type", Use::kShape},
    {"minLength", Use::kOfType, kString},
    {"maxLength", Use::kOfType, kString},
    {"pattern", Use::kOfType, kString},
    {"format", Use::kOfType, kString},
    {"minimum", Use::kOfType, kNumbers},
    {"maximum", Use::kOfType, kNumbers},
    {"exclusiveMinimum", Use::kOfType, kNumbers},
    {"exclusiveMaximum", Use::kOfType, kNumbers},
    {"multipleOf", Use::kOfType, kNumbers},
    {"items", Use::kOfType, kArray},
    {"prefixItems", Use::kOfType, kArray},
    {"minItems", Use::kOfType, kArray},
    {"maxItems", Use::kOfType, kArray},
    {"uniqueItems", Use::kOfType, kArray},
    {"properties", Use::kOfType, kObject},
    {"required", Use::kOfType, kObject},
    {"additionalProperties", Use::kOfType, kObject},
    {"unevaluatedProperties", Use::kOfType, kObject},
    {"patternProperties", Use::kOfType, kObject},
    {"propertyNames", Use::kOfType, kObject},
    {"minProperties", Use::kOfType, kObject},
    {"maxProperties", Use::kOfType, kObject},
    {"not", Use::kUnsupported},
    {"if", Use::kUnsupported},
    {"then", Use::kUnsupported},
    {"else", Use::kUnsupported},
    {"dependentRequired", Use::kUnsupported},
    {"dependentSchemas", Use::kUnsupported},
    {"dependencies", Use::kUnsupported},
    {"contains", Use::kUnsupported},
    {"minContains", Use::kUnsupported},
    {"maxContains", Use::kUnsupported},
    {"unevaluatedItems", Use::kUnsupported},
    {"additionalItems", Use::kUnsupported},
    {"contentEncoding", Use::kUnsupported},
    {"contentMediaType", Use::kUnsupported},
    {"contentSchema", Use::kUnsupported},
    {"nullable", Use::kUnsupported},
    {"$id", Use::kUnsupported},  // but for the root's
    {"$dynamicRef", Use::kUnsupported},
    {"$dynamicAnchor", Use::kUnsupported},
    {"$recursiveRef", Use::kUnsupported},
};

constexpr std::string_view kTypeNames[] = {"null", "boolean", "integer", "number", "string", "array", "object"};

#define UPG_DATE                                                                                                      \
  "[1-9][0-9]{3}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-" \
  "8]))"
#define UPG_TIME "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{3})?(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])"
#define UPG_LABEL "[a-z0-9]+(-[a-z0-9]+)*"  // nothing is counted here: that takes long to compile
#define UPG_HOST UPG_LABEL "(\\." UPG_LABEL ")*"
#define UPG_BYTE "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define UPG_UUID(version) "[0-9a-f]{8}-[0-9a-f]{4}-" version "-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
#define UPG_URI_CHAR "[A-Za-z0-9._~!$&'()*+,;=:@-]"

struct Format {
  std::string_view name;
  const char* pattern;
};

constexpr Format kFormats[] = {
    {"date", UPG_DATE},
    {"time", UPG_TIME},
    {"date-time", UPG_DATE "T" UPG_TIME},
    {"duration", "P([0-9]{1,4}W|[0-9]{1,4}D(T[0-9]{1,4}[HMS])?|T([0-9]{1,4}H)?([0-9]{1,2}M)?[0-9]{1,2}S)"},
    {"email", "[A-Za-z0-9_+-]+(\\.[A-Za-z0-9_+-]+)*@" UPG_LABEL "(\\." UPG_LABEL ")*\\.[a-z]{2,3}"},
    {"hostname", UPG_HOST},
    {"ipv4", UPG_BYTE "(\\." UPG_BYTE "){3}"},
    {"ipv6", "([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|([0-9a-f]{1,4}:){1,6}:[0-9a-f]{1,4}|::1"},
    {"uuid", UPG_UUID("[1-8][0-9a-f]{3}")},
    {"uuid1", UPG_UUID("1[0-9a-f]{3}")},
    {"uuid3", UPG_UUID("3[0-9a-f]{3}")},
    {"uuid4", UPG_UUID("4[0-9a-f]{3}")},
    {"uuid5", UPG_UUID("5[0-9a-f]{3}")},
    {"uri",
     "(https?|ftp)://" UPG_HOST "(:[1-9][0-9]{0,3})?(/" UPG_URI_CHAR "*)*(\\?[A-Za-z0-9=&_.-]*)?(#[A-Za-z0-9_.-]*)?"},
};

}  // namespace

const Keyword* find_keyword(std::string_view name) {
  const auto* row =
      std::find_if(std::begin(kKeywords), std::end(kKeywords), [&](const Keyword& k) { return k.name == name; });
  return row == std::end(kKeywords) ? nullptr : row;
}

uint8_t type_bit(std::string_view name) {
  const auto* at = std::find(std::begin(kTypeNames), std::end(kTypeNames), name);
  return at == std::end(kTypeNames) ? uint8_t{0} : static_cast<uint8_t>(1 << (at - std::begin(kTypeNames)));
}

std::string_view type_name(uint8_t bit) {
  for (size_t i = 0; i < std::size(kTypeNames); ++i)
    if (bit == 1 << i) return kTypeNames[i];
  return {};
}

const char* format_pattern(std::string_view name) {
  const auto* row =
      std::find_if(std::begin(kFormats), std::end(kFormats), [&](const Format& f) { return f.name == name; });
  return row == std::end(kFormats) ? nullptr : row->pattern;
}

}  // namespace upg::grammar
