// The list of normalizers, and each of them.
#include "text/tokenizer_normalizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "text/base64.h"
#include "text/graphemes.h"
#include "text/precompiled_charsmap.h"
#include "text/pretokenizer_regex.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"
#include "text/unicode_normalization.h"

namespace upg {
namespace {

using nlohmann::json;

class Form final : public Normalizer {
 public:
  explicit Form(NormalizationForm form) : form_(form) {}

  void normalize(NormalizedText& text) const override {
    std::string out = normalization_form(text.text, form_);
    if (text.at_start > 0 && !out.empty()) {
      const size_t start = normalization_form(std::string_view(text.text).substr(0, text.at_start), form_).size();
      text.at_start = std::max<size_t>(std::min(start, out.size()), code_point_at(out, 0).bytes);
    }
    text.text = std::move(out);
  }

 private:
  NormalizationForm form_;
};

// One character after the other: `rewrite` appends what stands for it.
class PerCharacter final : public Normalizer {
 public:
  using Rewrite = void (*)(std::string& out, uint32_t code_point);
  explicit PerCharacter(Rewrite rewrite) : rewrite_(rewrite) {}

  void normalize(NormalizedText& text) const override {
    Rewriter out(text);
    std::string character;
    for (size_t at = 0; at < text.text.size();) {
      const CodePoint c = code_point_at(text.text, at);
      character.clear();
      rewrite_(character, c.value);
      out.put(character, at);
      at += c.bytes;
    }
    text = out.take();
  }

 private:
  Rewrite rewrite_;
};

void without_accents(std::string& out, uint32_t c) {
  if (!contains(kAccents, c)) append_utf8(out, c);
}

// SentencePiece's "nmt" rules: controls go, other white space becomes a space.
void nmt(std::string& out, uint32_t c) {
  const bool removed =
      (c >= 0x1 && c <= 0x8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f;
  if (removed) return;
  const bool space = c == 0x9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 || (c >= 0x200b && c <= 0x200f) ||
                     c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
  append_utf8(out, space ? ' ' : c);
}

class Prepend final : public Normalizer {
 public:
  Prepend(const json& object, std::string_view where) : prefix_(string_member(object, "prepend", where)) {}
  void normalize(NormalizedText& text) const override {
    if (text.text.empty()) return;
    text.text.insert(0, prefix_);
    if (text.at_start > 0) text.at_start += prefix_.size();
  }

 private:
  std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  Replace(const json& object, std::string_view where)
      : regex_(regex_member(object, "pattern", where)), content_(string_member(object, "content", where)) {}
  void normalize(NormalizedText& text) const override {
    std::vector<Match> matches;
    regex_.find_all(text.text, matches);
    Rewriter out(text);
    const std::string_view whole = text.text;
    for (const Match& match : matches) {
      if (match.matched) {
        out.put(content_, match.end == 0 ? 0 : match.end - 1);
        continue;
      }
      // Up to the last byte that the start may reach, then the rest.
      const size_t middle = std::clamp(text.at_start, match.begin, match.end);
      if (match.begin < middle) out.put(whole.substr(match.begin, middle - match.begin), match.begin);
      if (middle < match.end) out.put(whole.substr(middle, match.end - middle), middle);
    }
    text = out.take();
  }

 private:
  Regex regex_;
  std::string content_;
};

class Strip final : public Normalizer {
 public:
  Strip(const json& object, std::string_view where)
      : left_(bool_member(object, "strip_left", false, where)),
        right_(bool_member(object, "strip_right", false, where)) {}
  void normalize(NormalizedText& text) const override {
    if (right_) text.text.resize(white_space_begin(text.text));
    const size_t begin = left_ ? white_space_end(text.text) : 0;
    text.text.erase(0, begin);
    text.at_start = std::min(text.at_start - std::min(text.at_start, begin), text.text.size());
  }

 private:
  bool left_;
  bool right_;
};

class Precompiled final : public Normalizer {
 public:
  Precompiled(const json& object, std::string_view where)
      : map_(bytes_of(object, where), field_path(where, "precompiled_charsmap")) {}

  // A short cluster is looked up as a whole, a long one character by character: so does Hugging Face tokenizers, and
  // since the shortest match counts, the rest of a cluster goes with it.
  void normalize(NormalizedText& text) const override {
    constexpr size_t kShortCluster = 6;
    Rewriter out(text);
    bool empty = true;
    const auto put = [&](std::string_view part, size_t at) {
      out.put(part, empty ? 0 : at);  // what is removed at the beginning is not accounted for there
      empty = empty && part.empty();
    };
    GraphemeWalk walk(text.text);
    size_t at = 0;
    for (std::string_view cluster = walk.next(); !cluster.empty(); cluster = walk.next()) {
      const auto whole = cluster.size() < kShortCluster ? map_.replacement(cluster) : std::nullopt;
      if (whole) {
        put(*whole, at);
      } else {
        for (size_t i = 0; i < cluster.size();) {
          const std::string_view character = cluster.substr(i, code_point_at(cluster, i).bytes);
          put(map_.replacement(character).value_or(character), at + i);
          i += character.size();
        }
      }
      at += cluster.size();
    }
    text = out.take();
  }

 private:
  static std::string bytes_of(const json& object, std::string_view where) {
    auto bytes = decode_base64(string_member(object, "precompiled_charsmap", where));
    if (!bytes) fail(ErrorCode::kInvalidFile, "{} is not base64", field_path(where, "precompiled_charsmap"));
    return std::move(*bytes);
  }

  PrecompiledCharsmap map_;
};

using Made = std::unique_ptr<Normalizer>;
Made make_part(const json& object, std::string_view where, int depth);

class Sequence final : public Normalizer {
 public:
  Sequence(const json& object, std::string_view where, int depth) {
    const json& parts = array_member(object, "normalizers", where);
    check_steps(parts.size(), where);
    for (size_t i = 0; i < parts.size(); ++i)
      parts_.push_back(make_part(parts[i], fmt::format("{}.normalizers[{}]", where, i), depth + 1));
  }
  void normalize(NormalizedText& text) const override {
    const size_t most = kMaxGrowth * (text.text.size() + 1024);
    for (const Made& part : parts_) {
      part->normalize(text);
      if (text.text.size() > most)
        fail(ErrorCode::kInvalidFile, "the normalizers of the tokenizer make more than {} bytes of a text", most);
    }
  }

 private:
  static constexpr size_t kMaxGrowth = 256;
  std::vector<Made> parts_;
};

template <typename T>
Made make(const json& object, std::string_view where, int) {
  return std::make_unique<T>(object, where);
}
template <bool compose, bool compatibility>
Made make_form(const json&, std::string_view, int) {
  return std::make_unique<Form>(NormalizationForm{compose, compatibility});
}
template <PerCharacter::Rewrite rewrite>
Made make_per_character(const json&, std::string_view, int) {
  return std::make_unique<PerCharacter>(rewrite);
}
Made make_sequence(const json& object, std::string_view where, int depth) {
  return std::make_unique<Sequence>(object, where, depth);
}

struct NormalizerRow {
  std::string_view name;
  Made (*make)(const json& object, std::string_view where, int depth);
};
constexpr NormalizerRow kNormalizers[] = {
    {"Sequence", make_sequence},
    {"NFC", make_form<true, false>},
    {"NFD", make_form<false, false>},
    {"NFKC", make_form<true, true>},
    {"NFKD", make_form<false, true>},
    {"Lowercase", make_per_character<append_lowercase>},
    {"StripAccents", make_per_character<without_accents>},
    {"Nmt", make_per_character<nmt>},
    {"Strip", make<Strip>},
    {"Prepend", make<Prepend>},
    {"Replace", make<Replace>},
    {"Precompiled", make<Precompiled>},
};

Made make_part(const json& object, std::string_view where, int depth) {
  check_nesting(depth, where);
  return row_for_type(kNormalizers, object, where).make(object, where, depth);
}

}  // namespace

void Rewriter::refuse() const {
  fail(ErrorCode::kInvalidFile, "a normalizer of the tokenizer makes more than {} times as much of a text", kMaxGrowth);
}

std::unique_ptr<Normalizer> make_normalizer(const json& object, std::string_view where) {
  if (object.is_null()) return nullptr;
  return make_part(object, where, 0);
}

}  // namespace upg
