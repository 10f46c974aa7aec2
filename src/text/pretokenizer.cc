// The list of pre-tokenizers, and each of them. Behaviour follows Hugging Face tokenizers, odd corners included.
#include "text/pretokenizer.h"

#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "text/metaspace.h"
#include "text/pretokenizer_regex.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace upg {
namespace {

using nlohmann::json;

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct ByteAlphabet {
  std::array<uint16_t, 256> character{};
  std::array<int16_t, 512> byte{};
};

// Printable Latin-1 stands for itself; the other bytes follow from U+0100 on.
constexpr ByteAlphabet make_byte_alphabet() {
  ByteAlphabet alphabet;
  for (auto& byte : alphabet.byte) byte = -1;
  uint16_t next = 256;
  for (uint16_t b = 0; b < 256; ++b) {
    const bool itself = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    const uint16_t c = itself ? b : next++;
    alphabet.character[b] = c;
    alphabet.byte[c] = static_cast<int16_t>(b);
  }
  return alphabet;
}
constexpr ByteAlphabet kByteAlphabet = make_byte_alphabet();

// What becomes of a match (a "delimiter") and of the text between matches.
using Behavior = void (*)(std::vector<Match>&);

void isolate(std::vector<Match>&) {}

void remove(std::vector<Match>& matches) {
  std::erase_if(matches, [](const Match& match) { return match.matched; });
}

void join_equal(std::vector<Match>& matches) {
  size_t kept = 0;
  bool previous = false;
  for (const Match match : matches) {
    if (match.matched == previous && kept > 0) {
      matches[kept - 1].end = match.end;
    } else {
      matches[kept++] = match;
    }
    previous = match.matched;
  }
  matches.resize(kept);
}

void join_with_previous(std::vector<Match>& matches) {
  size_t kept = 0;
  bool previous = false;
  for (const Match match : matches) {
    if (match.matched && !previous && kept > 0) {
      matches[kept - 1].end = match.end;
    } else {
      matches[kept++] = match;
    }
    previous = match.matched;
  }
  matches.resize(kept);
}

void join_with_next(std::vector<Match>& matches) {
  std::vector<Match> kept;  // in reverse
  bool previous = false;
  for (auto match = matches.rbegin(); match != matches.rend(); ++match) {
    if (match->matched && !previous && !kept.empty()) {
      kept.back().begin = match->begin;
    } else {
      kept.push_back(*match);
    }
    previous = match->matched;
  }
  matches.assign(kept.rbegin(), kept.rend());
}

struct BehaviorRow {
  std::string_view name;
  Behavior apply;
};
constexpr BehaviorRow kBehaviors[] = {
    {"Isolated", isolate},
    {"Removed", remove},
    {"Contiguous", join_equal},
    {"MergedWithPrevious", join_with_previous},
    {"MergedWithNext", join_with_next},
};

Behavior behavior_of(const json& object, std::string_view where, std::optional<Behavior> fallback = {}) {
  if (fallback && member(object, "behavior", where).is_null()) return *fallback;
  const std::string& name = string_member(object, "behavior", where);
  for (const BehaviorRow& row : kBehaviors)
    if (row.name == name) return row.apply;
  fail(ErrorCode::kUnsupported, "{} \"{}\" is not supported", field_path(where, "behavior"), name);
}

// Replaces every piece by what `find` and `behavior` make of it.
template <typename Find>
void split_pieces(Pieces& pieces, Behavior behavior, const Find& find) {
  std::vector<std::pair<size_t, size_t>> spans;
  spans.reserve(pieces.spans.size());
  std::vector<Match> matches;
  for (size_t i = 0; i < pieces.spans.size(); ++i) {
    find(pieces.piece(i), matches);
    behavior(matches);
    const size_t base = pieces.spans[i].first;
    for (const Match& match : matches)
      if (match.begin != match.end) spans.emplace_back(base + match.begin, base + match.end);
  }
  pieces.spans = std::move(spans);
}

template <typename Predicate>
void split_by_character(Pieces& pieces, Behavior behavior, const Predicate& is_delimiter) {
  split_pieces(pieces, behavior, [&](std::string_view text, std::vector<Match>& out) {
    out.clear();
    size_t covered = 0;
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = code_point_at(text, at);
      if (is_delimiter(c.value)) {
        if (covered < at) out.push_back({covered, at, false});
        covered = at + c.bytes;
        out.push_back({at, covered, true});
      }
      at += c.bytes;
    }
    if (covered < text.size()) out.push_back({covered, text.size(), false});
  });
}

// Replaces the text of every piece by what `append(piece, at_start, out)` appends.
template <typename Append>
void rewrite_pieces(Pieces& pieces, const Append& append) {
  std::string out;
  out.reserve(pieces.text.size() + pieces.text.size() / 2);
  size_t at_start = 0;
  for (size_t i = 0; i < pieces.spans.size(); ++i) {
    const size_t begin = out.size();
    const bool starts = pieces.spans[i].first < pieces.at_start;
    append(pieces.piece(i), starts, out);
    // Where the first character ends in the new piece matters only to a second such step: half a piece never does.
    if (starts) at_start = pieces.spans[i].second <= pieces.at_start ? out.size() : begin + 1;
    pieces.spans[i] = {begin, out.size()};
  }
  pieces.text = std::move(out);
  pieces.at_start = at_start;
}

class ByteLevel final : public PreTokenizer {
 public:
  ByteLevel(const json& object, std::string_view where)
      : add_prefix_space_(bool_member(object, "add_prefix_space", true, where)) {
    if (bool_member(object, "use_regex", true, where)) regex_.emplace(kGpt2Pattern, false, where);
  }

  void split(Pieces& pieces) const override {
    if (add_prefix_space_)
      rewrite_pieces(pieces, [](std::string_view piece, bool, std::string& out) {
        if (!piece.starts_with(' ')) out += ' ';
        out += piece;
      });
    if (regex_)
      split_pieces(pieces, isolate,
                   [&](std::string_view text, std::vector<Match>& out) { regex_->find_all(text, out); });
    rewrite_pieces(pieces, [](std::string_view piece, bool, std::string& out) {
      for (const char c : piece) append_utf8(out, byte_level_character(static_cast<uint8_t>(c)));
    });
  }

 private:
  bool add_prefix_space_;
  std::optional<Regex> regex_;
};

class Split final : public PreTokenizer {
 public:
  Split(const json& object, std::string_view where)
      : regex_(regex_member(object, "pattern", where)),
        behavior_(behavior_of(object, where)),
        invert_(bool_member(object, "invert", false, where)) {}

  void split(Pieces& pieces) const override {
    split_pieces(pieces, behavior_, [&](std::string_view text, std::vector<Match>& out) {
      regex_.find_all(text, out);
      if (!invert_) return;
      for (Match& match : out) match.matched = !match.matched;
    });
  }

 private:
  Regex regex_;
  Behavior behavior_;
  bool invert_;
};

// What the regular expression matches, rather than what lies between, is kept.
class Whitespace final : public PreTokenizer {
 public:
  Whitespace(const json&, std::string_view where)
      : regex_(R"([\w\x{200c}\x{200d}]+|[^\w\x{200c}\x{200d}\s]+)", false, where) {}
  void split(Pieces& pieces) const override {
    split_pieces(pieces, remove, [&](std::string_view text, std::vector<Match>& out) {
      regex_.find_all(text, out);
      for (Match& match : out) match.matched = !match.matched;
    });
  }

 private:
  Regex regex_;
};

class WhitespaceSplit final : public PreTokenizer {
 public:
  WhitespaceSplit(const json&, std::string_view) {}
  void split(Pieces& pieces) const override { split_by_character(pieces, remove, is_white_space); }
};

// Spaces become a visible character, which also goes before the pieces, or the first of them.
class Metaspace final : public PreTokenizer {
 public:
  Metaspace(const json& object, std::string_view where)
      : replacement_(metaspace_replacement(object, where)),
        prefix_(metaspace_prefix(object, where)),
        split_(bool_member(object, "split", true, where)) {}

  void split(Pieces& pieces) const override {
    rewrite_pieces(pieces, [&](std::string_view piece, bool at_start, std::string& out) {
      const bool prefixed = piece.starts_with(' ') || piece.starts_with(replacement_);
      if (!prefixed && (prefix_ == MetaspacePrefix::kAlways || (prefix_ == MetaspacePrefix::kFirst && at_start)))
        out += replacement_;
      for (const char c : piece) c == ' ' ? out += replacement_ : out += c;
    });
    if (!split_) return;
    split_by_character(pieces, join_with_next, [&](uint32_t c) { return c == code_point_at(replacement_, 0).value; });
  }

 private:
  std::string replacement_;
  MetaspacePrefix prefix_;
  bool split_;
};

class Digits final : public PreTokenizer {
 public:
  Digits(const json& object, std::string_view where)
      : behavior_(bool_member(object, "individual_digits", false, where) ? isolate : join_equal) {}
  void split(Pieces& pieces) const override {
    split_by_character(pieces, behavior_, [](uint32_t c) { return contains(kNumeric, c); });
  }

 private:
  Behavior behavior_;
};

class Punctuation final : public PreTokenizer {
 public:
  Punctuation(const json& object, std::string_view where) : behavior_(behavior_of(object, where, isolate)) {}
  void split(Pieces& pieces) const override {
    split_by_character(pieces, behavior_, [](uint32_t c) { return contains(kPunctuation, c); });
  }

 private:
  Behavior behavior_;
};

using Made = std::unique_ptr<PreTokenizer>;

struct Building {
  int depth = 0;
  bool byte_level = false;
};
Made make_part(const json& object, std::string_view where, Building& building);

class Sequence final : public PreTokenizer {
 public:
  Sequence(const json& object, std::string_view where, Building& building) {
    ++building.depth;
    const json& parts = array_member(object, "pretokenizers", where);
    check_steps(parts.size(), where);
    for (size_t i = 0; i < parts.size(); ++i)
      parts_.push_back(make_part(parts[i], fmt::format("{}.pretokenizers[{}]", where, i), building));
    --building.depth;
  }
  void split(Pieces& pieces) const override {
    for (const Made& part : parts_) part->split(pieces);
  }

 private:
  std::vector<Made> parts_;
};

template <typename T>
Made make(const json& object, std::string_view where, Building&) {
  return std::make_unique<T>(object, where);
}
Made make_byte_level(const json& object, std::string_view where, Building& building) {
  // Each one doubles the text, so that a short list of them would fill any memory.
  if (std::exchange(building.byte_level, true)) fail(ErrorCode::kUnsupported, "{}: a second ByteLevel", where);
  return std::make_unique<ByteLevel>(object, where);
}
Made make_sequence(const json& object, std::string_view where, Building& building) {
  return std::make_unique<Sequence>(object, where, building);
}

struct PreTokenizerRow {
  std::string_view name;
  Made (*make)(const json& object, std::string_view where, Building& building);
};
constexpr PreTokenizerRow kPreTokenizers[] = {
    {"Sequence", make_sequence},      {"Split", make<Split>},
    {"ByteLevel", make_byte_level},   {"Punctuation", make<Punctuation>},
    {"Digits", make<Digits>},         {"Metaspace", make<Metaspace>},
    {"Whitespace", make<Whitespace>}, {"WhitespaceSplit", make<WhitespaceSplit>},
};

Made make_part(const json& object, std::string_view where, Building& building) {
  check_nesting(building.depth, where);
  return row_for_type(kPreTokenizers, object, where).make(object, where, building);
}

}  // namespace

std::unique_ptr<PreTokenizer> make_pretokenizer(const json& object, std::string_view where) {
  if (object.is_null()) return nullptr;
  Building building;
  return make_part(object, where, building);
}

uint32_t byte_level_character(uint8_t byte) { return kByteAlphabet.character[byte]; }

int byte_level_byte(uint32_t code_point) {
  return code_point < kByteAlphabet.byte.size() ? kByteAlphabet.byte[code_point] : -1;
}

}  // namespace upg
