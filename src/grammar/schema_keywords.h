// THE list of keywords of JSON Schema: whom they concern, and which are only notes for readers.
#pragma once

#include <cstdint>
#include <string_view>

namespace upg::grammar {

/// Types as bits. An integer is a number too, for schemas that must exclude each other.
enum Types : uint8_t {
  kNull = 1,
  kBoolean = 2,
  kInteger = 4,
  kNumber = 8,
  kString = 16,
  kArray = 32,
  kObject = 64,
  kAllTypes = 127,
};

enum class Use : uint8_t {
  kNote,         // says nothing about what is valid
  kShape,        // decides what the schema is: a reference, a list of values, a choice
  kOfType,       // restricts values of some types
  kUnsupported,  // restricts in a way that is not enforced
};

struct Keyword {
  std::string_view name;
  Use use;
  uint8_t types = 0;  // that it restricts
};

/// nullptr for a word that is none.
const Keyword* find_keyword(std::string_view name);
/// 0 for a name that is none.
uint8_t type_bit(std::string_view name);
std::string_view type_name(uint8_t bit);

/// Texts that every reader of the format takes, as a pattern; not all of them (no leap seconds or days, say). nullptr
/// for a format that is not in the list.
const char* format_pattern(std::string_view name);

}  // namespace upg::grammar
