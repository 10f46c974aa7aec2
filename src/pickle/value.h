// What a pickle holds, as data: values in one arena that refer to each other by number. Shared and self-referring
// values cost nothing, and nothing here recurses, so neither depth nor cycles of a hostile file matter.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "pickle/globals.h"

namespace upg::pickle {

using Ref = uint32_t;
inline constexpr Ref kNoRef = 0xffffffff;

enum class Kind : uint8_t {
  kNone,
  kBool,
  kInt,     // of 64 bits
  kBigInt,  // wider: bytes are its little-endian two's complement
  kFloat,
  kText,    // bytes are UTF-8; not checked
  kString,  // Python 2's str, which is text or bytes
  kBytes,
  kList,
  kTuple,
  kSet,
  kDict,
  kGlobal,   // a name of the list in globals.cc
  kObject,   // what a global would have made: called with args, or an instance of a class; then given a state
  kStorage,  // what a persistent id stands for: args is the id, a tuple
};

/// "a list", for messages.
std::string_view kind_name(Kind kind);

struct Value {
  Kind kind = Kind::kNone;
  const Global* global = nullptr;  // kGlobal; kObject: its maker; kDict: collections.OrderedDict where it is one
  uint64_t at = 0;                 // the byte of the opcode that made it
  int64_t number = 0;              // kBool, kInt
  double real = 0;                 // kFloat
  std::string_view bytes{};        // lies in the file or in Tree::owned
  std::vector<Ref> items{};        // kList, kTuple, kSet; kDict: key, value, key, value...
  Ref args = kNoRef;               // kObject, kStorage
  Ref state = kNoRef;              // kObject: what BUILD gave
};

/// Valid while the bytes that it was read from are.
struct Tree {
  std::string where;  // begins messages
  std::deque<Value> values;
  std::deque<std::string> owned;  // decoded strings
  Ref root = kNoRef;
  uint64_t end = 0;  // bytes read, STOP included

  const Value& operator[](Ref ref) const { return values[ref]; }
  const Value& top() const { return values[root]; }

  /// The value of a text key in a dict, or in the state of an object that has a dict as state; nullptr where there is
  /// none. Throws Error(kInvalidFile) for a key that is there twice.
  const Value* find(const Value& dict, std::string_view key) const;
  /// The dict that find() looks in: the value itself, or an object's state; nullptr for any other.
  const Value* fields(const Value& value) const;
  /// args of an object, items of a tuple.
  const Value* arg(const Value& object, size_t index) const;
  size_t arg_count(const Value& object) const;
};

/// Whether the value is text, and which.
inline bool is_text(const Value& value) { return value.kind == Kind::kText || value.kind == Kind::kString; }
inline bool is_text(const Value& value, std::string_view text) { return is_text(value) && value.bytes == text; }

/// A name of a file for a message: odd bytes escaped, not longer than a line.
std::string shown(std::string_view name);

}  // namespace upg::pickle
