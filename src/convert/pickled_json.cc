#include "convert/pickled_json.h"

#include <cmath>
#include <vector>

#include "base/error.h"
#include "format/json.h"

namespace upg {
namespace {

using pickle::Kind;
using pickle::Ref;
using pickle::Value;

constexpr size_t kMostLevels = 64;
constexpr size_t kMostText = 64 << 20;  // tokenizers of a quarter million entries have a third of it

struct Level {
  const Value* container;
  size_t next = 0;  // of its items
};

bool is_container(const Value& value) {
  return value.kind == Kind::kDict || value.kind == Kind::kList || value.kind == Kind::kTuple;
}

void append_scalar(std::string& out, const Value& value, std::string_view what) {
  switch (value.kind) {
    case Kind::kNone:
      out += "null";
      return;
    case Kind::kBool:
      out += value.number != 0 ? "true" : "false";
      return;
    case Kind::kInt:
      out += std::to_string(value.number);
      return;
    case Kind::kFloat:
      if (!std::isfinite(value.real)) fail(ErrorCode::kInvalidFile, "{}: holds a float that JSON does not have", what);
      out += Json(value.real).dump();
      return;
    case Kind::kText:
    case Kind::kString:
      out += json_text(std::string(value.bytes), what);
      return;
    default:
      fail(ErrorCode::kInvalidFile, "{}: holds {}, which JSON does not have", what, kind_name(value.kind));
  }
}

}  // namespace

std::string pickled_json(const pickle::Tree& tree, const Value& value, std::string_view what) {
  std::string out;
  std::vector<Level> levels;
  const auto begin = [&](const Value& each) {
    if (!is_container(each)) return append_scalar(out, each, what);
    if (levels.size() == kMostLevels)
      fail(ErrorCode::kInvalidFile, "{}: is nested more than {} levels deep", what, kMostLevels);
    out += each.kind == Kind::kDict ? '{' : '[';
    levels.push_back({&each});
  };
  begin(value);
  while (!levels.empty()) {
    if (out.size() > kMostText) fail(ErrorCode::kInvalidFile, "{}: makes more than {} bytes of JSON", what, kMostText);
    Level& level = levels.back();
    const Value& container = *level.container;
    if (level.next == container.items.size()) {
      out += container.kind == Kind::kDict ? '}' : ']';
      levels.pop_back();
      continue;
    }
    if (level.next > 0) out += ',';
    if (container.kind == Kind::kDict) {
      const Value& key = tree[container.items[level.next++]];
      if (!is_text(key))
        fail(ErrorCode::kInvalidFile, "{}: has a key that is {}, not a text", what, kind_name(key.kind));
      append_scalar(out, key, what);
      out += ':';
    }
    begin(tree[container.items[level.next++]]);  // may move `level`
  }
  return out;
}

}  // namespace upg
