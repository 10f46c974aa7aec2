#include "text/sentencepiece_model.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "text/base64.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_source.h"
#include "text/unicode.h"

namespace upg {
namespace {

using nlohmann::json;

constexpr size_t kMaxPieceBytes = 1 << 10;
constexpr size_t kMaxMergeBytes = size_t{64} << 20;
constexpr std::string_view kSpace = "\u2581";

// The fields of one message, one after the other.
class Message {
 public:
  Message(std::string_view bytes, std::string_view where) : bytes_(bytes), where_(where) {}

  /// False at the end. After it, number() and the value of its kind.
  bool next() {
    if (bytes_.empty()) return false;
    const uint64_t key = read_varint();
    number_ = key >> 3;
    kind_ = key & 7;
    if (kind_ == 0) {
      value_ = read_varint();
    } else if (kind_ == 2) {
      data_ = take(read_varint());
    } else if (kind_ == 1 || kind_ == 5) {
      data_ = take(kind_ == 1 ? 8 : 4);
    } else {
      broken("a field of a kind that is not known");
    }
    return true;
  }
  uint64_t number() const { return number_; }
  uint64_t integer() const {
    if (kind_ != 0) broken("a field of another type than it should have");
    return value_;
  }
  std::string_view bytes() const {
    if (kind_ != 2) broken("a field of another type than it should have");
    return data_;
  }
  float real() const {
    if (kind_ != 5) broken("a field of another type than it should have");
    uint32_t bits = 0;
    for (size_t i = 4; i-- > 0;) bits = bits << 8 | static_cast<uint8_t>(data_[i]);
    return std::bit_cast<float>(bits);
  }

 private:
  [[noreturn]] void broken(std::string_view what) const {
    fail(ErrorCode::kInvalidFile, "{} not a SentencePiece model: {}", where_, what);
  }
  std::string_view take(uint64_t count) {
    if (count > bytes_.size()) broken("it ends in the middle of a field");
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  uint64_t read_varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = static_cast<uint8_t>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
    broken("a number of more than 64 bits");
  }

  std::string_view bytes_;
  std::string_view where_;
  uint64_t number_ = 0;
  uint64_t kind_ = 0;
  uint64_t value_ = 0;
  std::string_view data_;
};

enum PieceType : uint64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct Piece {
  std::string text;
  float score = 0;
  uint64_t type = kNormal;
};

struct Proto {
  std::vector<Piece> pieces;
  uint64_t model_type = 1;
  bool byte_fallback = false;
  int32_t bos = 1;
  int32_t eos = 2;
  std::string charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
};

Piece read_piece(std::string_view bytes, std::string_view where) {
  Piece piece;
  for (Message message(bytes, where); message.next();) {
    if (message.number() == 1) piece.text = message.bytes();
    if (message.number() == 2) piece.score = message.real();
    if (message.number() == 3) piece.type = message.integer();
  }
  std::string repaired;
  append_repaired_utf8(repaired, piece.text, false);
  if (repaired != piece.text || piece.text.empty())
    fail(ErrorCode::kInvalidFile, "{} a piece that is empty or not UTF-8", where);
  if (piece.text.size() > kMaxPieceBytes)
    fail(ErrorCode::kUnsupported, "{} a piece of {} bytes; up to {} are supported", where, piece.text.size(),
         kMaxPieceBytes);
  if (piece.type < kNormal || piece.type > kByte)
    fail(ErrorCode::kUnsupported, "{} the piece \"{}\" has the unknown type {}", where, piece.text, piece.type);
  if (!(std::abs(piece.score) < 1e30f))
    fail(ErrorCode::kInvalidFile, "{} the piece \"{}\" has a score that is not a number", where, piece.text);
  return piece;
}

void read_trainer(Message spec, std::string_view where, Proto& proto) {
  while (spec.next()) {
    if (spec.number() == 3) proto.model_type = spec.integer();
    if (spec.number() == 24 && spec.integer() != 0)
      fail(ErrorCode::kUnsupported, "{} treat_whitespace_as_suffix is not supported", where);
    if (spec.number() == 35) proto.byte_fallback = spec.integer() != 0;
    if (spec.number() == 41) proto.bos = static_cast<int32_t>(spec.integer());
    if (spec.number() == 42) proto.eos = static_cast<int32_t>(spec.integer());
  }
}

void read_normalizer(Message spec, std::string_view where, Proto& proto) {
  while (spec.next()) {
    if (spec.number() == 2) proto.charsmap = spec.bytes();
    if (spec.number() == 3) proto.add_dummy_prefix = spec.integer() != 0;
    if (spec.number() == 4) proto.remove_extra_whitespaces = spec.integer() != 0;
    if (spec.number() == 5 && spec.integer() == 0)
      fail(ErrorCode::kUnsupported, "{} a model without escape_whitespaces is not supported", where);
  }
}

Proto read_proto(std::string_view bytes, std::string_view where) {
  Proto proto;
  for (Message message(bytes, where); message.next();) {
    if (message.number() == 1) proto.pieces.push_back(read_piece(message.bytes(), where));
    if (message.number() == 2) read_trainer({message.bytes(), where}, where, proto);
    if (message.number() == 3) read_normalizer({message.bytes(), where}, where, proto);
    if (proto.pieces.size() > static_cast<size_t>(kMaxTokenId))
      fail(ErrorCode::kUnsupported, "{} more than {} pieces", where, kMaxTokenId);
  }
  return proto;
}

const Piece* unknown_piece(const Proto& proto) {
  const auto found =
      std::find_if(proto.pieces.begin(), proto.pieces.end(), [](const Piece& p) { return p.type == kUnknown; });
  return found == proto.pieces.end() ? nullptr : &*found;
}

json bpe_model(const Proto& proto, std::string_view where) {
  std::unordered_map<std::string_view, size_t> ids;
  json vocabulary = json::object();
  for (size_t i = 0; i < proto.pieces.size(); ++i) {
    if (!ids.emplace(proto.pieces[i].text, i).second)
      fail(ErrorCode::kInvalidFile, "{} the piece \"{}\" is there twice", where, proto.pieces[i].text);
    vocabulary[proto.pieces[i].text] = i;
  }
  struct Merge {
    float score;
    size_t left, right;  // ids
  };
  std::vector<Merge> merges;
  size_t merge_bytes = 0;
  for (const Piece& piece : proto.pieces) {
    if (piece.type != kNormal) continue;
    std::vector<Merge> splits;
    const std::string_view text = piece.text;
    for (size_t at = code_point_at(text, 0).bytes; at < text.size(); at += code_point_at(text, at).bytes) {
      const auto left = ids.find(text.substr(0, at));
      const auto right = left == ids.end() ? left : ids.find(text.substr(at));
      if (right != ids.end()) splits.push_back({piece.score, left->second, right->second});
    }
    std::sort(splits.begin(), splits.end(),
              [](const Merge& a, const Merge& b) { return std::pair(a.left, a.right) < std::pair(b.left, b.right); });
    merges.insert(merges.end(), splits.begin(), splits.end());
    merge_bytes += splits.size() * text.size();
    if (merge_bytes > kMaxMergeBytes) fail(ErrorCode::kUnsupported, "{} too many ways to make pieces of pieces", where);
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) { return a.score > b.score; });
  json list = json::array();
  for (const Merge& merge : merges) list.push_back({proto.pieces[merge.left].text, proto.pieces[merge.right].text});
  json model = {{"type", "BPE"},
                {"fuse_unk", true},
                {"byte_fallback", proto.byte_fallback},
                {"vocab", vocabulary},
                {"merges", list}};
  if (const Piece* unknown = unknown_piece(proto)) model["unk_token"] = unknown->text;
  return model;
}

json unigram_model(const Proto& proto, std::string_view where) {
  const Piece* unknown = unknown_piece(proto);
  if (unknown == nullptr) fail(ErrorCode::kInvalidFile, "{} has no piece for what is unknown", where);
  json vocabulary = json::array();
  for (const Piece& piece : proto.pieces) vocabulary.push_back({piece.text, static_cast<double>(piece.score)});
  return {{"type", "Unigram"},
          {"unk_id", unknown - proto.pieces.data()},
          {"byte_fallback", proto.byte_fallback},
          {"vocab", vocabulary}};
}

struct ModelTypeRow {
  uint64_t type;
  json (*make)(const Proto& proto, std::string_view where);
};
constexpr ModelTypeRow kModelTypes[] = {{1, unigram_model}, {2, bpe_model}};

json model_of(const Proto& proto, std::string_view where) {
  for (const ModelTypeRow& row : kModelTypes)
    if (row.type == proto.model_type) return row.make(proto, where);
  fail(ErrorCode::kUnsupported, "{} SentencePiece's model type {} is not supported; unigram and BPE are", where,
       proto.model_type);
}

// What goes around a text where tokenizer_config.json does not say.
struct FamilyRow {
  std::string_view family;  // config.json's "model_type"
  bool bos;
  bool eos;
};
constexpr FamilyRow kFamilies[] = {
    {"llama", true, false}, {"mistral", true, false}, {"mixtral", true, false}, {"phi3", true, false},
    {"gemma", true, false}, {"gemma2", true, false},  {"gemma3", true, false},  {"gemma3_text", true, false},
    {"t5", false, true},    {"mt5", false, true},     {"umt5", false, true},
};

bool family_adds(const VocabularySource& source, bool FamilyRow::*which) {
  const json& type = member(source.config, "model_type", "config.json");
  for (const FamilyRow& row : kFamilies)
    if (type.is_string() && type.get_ref<const std::string&>() == row.family) return row.*which;
  return false;
}

json replace(const char* kind, std::string_view pattern, std::string_view content) {
  return {{"type", "Replace"}, {"pattern", json::object({{kind, pattern}})}, {"content", content}};
}

json sequence(const char* key, json parts) {
  return parts.empty() ? json() : json{{"type", "Sequence"}, {key, std::move(parts)}};
}

json added_tokens(const Proto& proto, bool prefixed, std::string_view where) {
  json tokens = json::array();
  for (size_t i = 0; i < proto.pieces.size(); ++i) {
    const Piece& piece = proto.pieces[i];
    if (piece.type != kUnknown && piece.type != kControl && piece.type != kUserDefined) continue;
    json token = special_token(static_cast<int32_t>(i), piece.text);
    token["special"] = piece.type != kUserDefined;
    // Spaces are not yet U+2581 where tokens are looked for first.
    token["normalized"] = piece.type == kUserDefined && piece.text.find(kSpace) != std::string::npos;
    if (prefixed && token["normalized"].get<bool>())
      fail(ErrorCode::kUnsupported, "{} the user-defined piece \"{}\" with spaces, in a model with add_dummy_prefix",
           where, piece.text);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

bool is_sentencepiece_model(std::string_view bytes) {
  // A piece: field 1, its length, and in it again field 1, the text. No base64 begins with a line feed.
  if (bytes.size() < 4 || bytes[0] != '\n') return false;
  const uint8_t length = static_cast<uint8_t>(bytes[1]);
  return bytes[length < 128 ? 2 : 3] == '\n';
}

json sentencepiece_tokenizer(const VocabularySource& source) {
  const Proto proto = read_proto(source.contents, source.where);
  if (proto.pieces.empty()) fail(ErrorCode::kInvalidFile, "{} has no pieces", source.where);
  const bool legacy = bool_member(source.tokenizer_config, "legacy", true, "tokenizer_config.json");

  json normalizers = json::array();
  if (!proto.charsmap.empty())
    normalizers.push_back({{"type", "Precompiled"}, {"precompiled_charsmap", encode_base64(proto.charsmap)}});
  if (proto.remove_extra_whitespaces) {
    normalizers.push_back(replace("Regex", R"((?<![\s\S]) +)", ""));
    normalizers.push_back(replace("Regex", R"( +(?![\s\S]))", ""));
    normalizers.push_back(replace("Regex", " {2,}", " "));
  }
  json pretokenizer = nullptr;
  if (legacy || !proto.add_dummy_prefix) {
    if (proto.add_dummy_prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", kSpace}});
    normalizers.push_back(replace("String", " ", kSpace));
  } else {  // the prefix goes before the whole text only, not behind each special token
    pretokenizer = {{"type", "Metaspace"}, {"replacement", kSpace}, {"prepend_scheme", "first"}, {"split", false}};
  }
  json decoders = json::array({replace("String", kSpace, " ")});
  if (proto.byte_fallback) decoders.push_back(json::object({{"type", "ByteFallback"}}));
  decoders.push_back(json::object({{"type", "Fuse"}}));
  if (proto.add_dummy_prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});

  json tokens = added_tokens(proto, proto.add_dummy_prefix, source.where);
  const auto around = [&](const char* key, bool FamilyRow::*which, int32_t id) {
    json found = json::array();
    if (!bool_member(source.tokenizer_config, key, family_adds(source, which), "tokenizer_config.json")) return found;
    if (id < 0 || static_cast<size_t>(id) >= proto.pieces.size())
      fail(ErrorCode::kInvalidFile, "{} has no token for {}", source.where, key);
    found.push_back(special_token(id, proto.pieces[static_cast<size_t>(id)].text));
    return found;
  };
  return {
      {"version", "1.0"},
      {"normalizer", sequence("normalizers", normalizers)},
      {"pre_tokenizer", pretokenizer},
      {"post_processor", surrounding_template(around("add_bos_token", &FamilyRow::bos, proto.bos),
                                              around("add_eos_token", &FamilyRow::eos, proto.eos))},
      {"decoder", sequence("decoders", decoders)},
      {"added_tokens", added_tokens_of(source.tokenizer_config, std::move(tokens), "tokenizer_config.json")},
      {"model", model_of(proto, source.where)},
  };
}

}  // namespace upg
