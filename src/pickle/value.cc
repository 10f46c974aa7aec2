#include "pickle/value.h"

#include <array>

#include "base/error.h"

namespace upg::pickle {

std::string_view kind_name(Kind kind) {
  static constexpr std::array<std::string_view, 15> kNames = {
      "None",    "a bool", "an int", "a large int",         "a float",   "a text",   "a string", "bytes", "a list",
      "a tuple", "a set",  "a dict", "a class or function", "an object", "a storage"};
  return kNames.at(static_cast<size_t>(kind));
}

std::string shown(std::string_view name) {
  constexpr size_t kLongest = 120;
  std::string text;
  for (const char c : name.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    text += byte > 0x20 && byte < 0x7f && c != '\\' ? std::string(1, c) : fmt::format("\\x{:02x}", byte);
  }
  if (name.size() > kLongest) text += fmt::format("... ({} bytes)", name.size());
  return text;
}

const Value* Tree::fields(const Value& value) const {
  if (value.kind == Kind::kDict) return &value;
  if (value.kind != Kind::kObject || value.state == kNoRef) return nullptr;
  const Value& state = values[value.state];
  return state.kind == Kind::kDict ? &state : nullptr;
}

const Value* Tree::find(const Value& dict, std::string_view key) const {
  const Value* in = fields(dict);
  if (in == nullptr) return nullptr;
  constexpr size_t kMostKeys = 4096;  // of what is searched by key: a dict may be shared by a million others
  if (in->items.size() > 2 * kMostKeys)
    fail(ErrorCode::kInvalidFile, "{}: the dict at byte {} has {} keys; at most {} are read", where, in->at,
         in->items.size() / 2, kMostKeys);
  const Value* found = nullptr;
  for (size_t i = 0; i + 1 < in->items.size(); i += 2) {
    if (!is_text(values[in->items[i]], key)) continue;
    if (found != nullptr)
      fail(ErrorCode::kInvalidFile, "{}: the dict at byte {} has the key \"{}\" twice", where, in->at, key);
    found = &values[in->items[i + 1]];
  }
  return found;
}

size_t Tree::arg_count(const Value& object) const {
  const Value& tuple = object.args == kNoRef ? object : values[object.args];
  return tuple.kind == Kind::kTuple ? tuple.items.size() : 0;
}

const Value* Tree::arg(const Value& object, size_t index) const {
  if (index >= arg_count(object)) return nullptr;
  const Value& tuple = object.args == kNoRef ? object : values[object.args];
  return &values[tuple.items[index]];
}

}  // namespace upg::pickle
