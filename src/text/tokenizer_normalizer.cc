// The list of normalizers, and each of them.
#include "text/tokenizer_normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace upg {
namespace {

using nlohmann::json;

// The NFC of `tokenizers` is that of an old Unicode: marks assigned since then neither reorder nor compose there.
// Cutting the text at them gives the same with any utf8proc, since no character composes or reorders across what is
// inert.
class Nfc final : public Normalizer {
 public:
  Nfc(const json&, std::string_view) {}

  std::string normalize(std::string_view text) const override {
    if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; }))
      return std::string(text);
    std::string out;
    out.reserve(text.size());
    size_t begin = 0;
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = code_point_at(text, at);
      if (c.value >= 0x300 && contains(kNormalizationBarriers, c.value)) {
        append_composed(out, text.substr(begin, at - begin));
        out.append(text, at, c.bytes);
        begin = at + c.bytes;
      }
      at += c.bytes;
    }
    append_composed(out, text.substr(begin));
    return out;
  }

 private:
  // utf8proc_map() does the same, but sorts a long run of marks in quadratic time.
  static void append_composed(std::string& out, std::string_view text) {
    constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    std::vector<utf8proc_int32_t> points;
    points.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = code_point_at(text, at);
      utf8proc_int32_t parts[32];  // a canonical decomposition has up to 4
      const utf8proc_ssize_t count =
          utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.value), parts, 32, kOptions, nullptr);
      if (count < 0 || count > 32) fail(ErrorCode::kInvalidArgument, "cannot normalize U+{:04X}", c.value);
      points.insert(points.end(), parts, parts + count);
      at += c.bytes;
    }
    const auto combining_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
    for (auto run = points.begin(); run != points.end();) {
      run = std::find_if(run, points.end(), [&](auto c) { return combining_class(c) != 0; });
      const auto end = std::find_if(run, points.end(), [&](auto c) { return combining_class(c) == 0; });
      std::stable_sort(run, end, [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
      run = end;
    }
    const utf8proc_ssize_t size =
        utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()), kOptions);
    if (size < 0) fail(ErrorCode::kInvalidArgument, "cannot normalize the text: {}", utf8proc_errmsg(size));
    for (utf8proc_ssize_t i = 0; i < size; ++i) append_utf8(out, static_cast<uint32_t>(points[static_cast<size_t>(i)]));
  }
};

using Made = std::unique_ptr<Normalizer>;
Made make_part(const json& object, std::string_view where, int depth);

class Sequence final : public Normalizer {
 public:
  Sequence(const json& object, std::string_view where, int depth) {
    const json& parts = array_member(object, "normalizers", where);
    for (size_t i = 0; i < parts.size(); ++i)
      parts_.push_back(make_part(parts[i], fmt::format("{}.normalizers[{}]", where, i), depth + 1));
  }
  std::string normalize(std::string_view text) const override {
    std::string out(text);
    for (const Made& part : parts_) out = part->normalize(out);
    return out;
  }

 private:
  std::vector<Made> parts_;
};

struct NormalizerRow {
  std::string_view name;
  Made (*make)(const json& object, std::string_view where, int depth);
};
constexpr NormalizerRow kNormalizers[] = {
    {"Sequence",
     [](const json& object, std::string_view where, int depth) -> Made {
       return std::make_unique<Sequence>(object, where, depth);
     }},
    {"NFC",
     [](const json& object, std::string_view where, int) -> Made { return std::make_unique<Nfc>(object, where); }},
};

Made make_part(const json& object, std::string_view where, int depth) {
  check_nesting(depth, where);
  return row_for_type(kNormalizers, object, where).make(object, where, depth);
}

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(const json& object, std::string_view where) {
  if (object.is_null()) return nullptr;
  return make_part(object, where, 0);
}

}  // namespace upg
