// The list of decoders, and each of them.
#include "text/tokenizer_decoder.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace upg {
namespace {

using nlohmann::json;

class ByteLevel final : public TokenDecoder {
 public:
  // A token with any character outside the byte alphabet stands for itself.
  std::string bytes(std::string_view content) const override {
    std::string out;
    for (size_t at = 0; at < content.size();) {
      const CodePoint c = code_point_at(content, at);
      const int byte = byte_level_byte(c.value);
      if (byte < 0) return std::string(content);
      out += static_cast<char>(byte);
      at += c.bytes;
    }
    return out;
  }
};

using Made = std::unique_ptr<TokenDecoder>;
Made make_part(const json& object, std::string_view where, int depth);

Made make_sequence(const json& object, std::string_view where, int depth) {
  const json& parts = array_member(object, "decoders", where);
  if (parts.size() != 1) fail(ErrorCode::kUnsupported, "{}: a Sequence of {} decoders", where, parts.size());
  return make_part(parts[0], fmt::format("{}.decoders[0]", where), depth + 1);
}

struct DecoderRow {
  std::string_view name;
  Made (*make)(const json& object, std::string_view where, int depth);
};
constexpr DecoderRow kDecoders[] = {
    {"Sequence", make_sequence},
    {"ByteLevel", [](const json&, std::string_view, int) -> Made { return std::make_unique<ByteLevel>(); }},
};

Made make_part(const json& object, std::string_view where, int depth) {
  check_nesting(depth, where);
  return row_for_type(kDecoders, object, where).make(object, where, depth);
}

}  // namespace

std::unique_ptr<TokenDecoder> make_token_decoder(const json& object, std::string_view where) {
  if (object.is_null()) fail(ErrorCode::kUnsupported, "{} is null or absent; only ByteLevel is supported", where);
  return make_part(object, where, 0);
}

}  // namespace upg
