// Puts the parts of a tokenizer together.
#include "text/tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/detokenizer.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_added.h"
#include "text/tokenizer_decoder.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_model.h"
#include "text/tokenizer_normalizer.h"
#include "text/tokenizer_postprocessor.h"
#include "text/unicode.h"

namespace upg {
namespace {

using nlohmann::json;

// The bytes of every token, end to end.
struct TokenBytes {
  std::string bytes;
  std::vector<size_t> begins;  // by id, and the end of the last
  std::vector<bool> there;
  std::vector<bool> special;
  std::vector<bool> byte;  // of byte fallback
};

// A token as the decoder gets it; nullopt for an id that no token has.
std::optional<std::string_view> content_of(int32_t id, const Vocabulary& vocabulary, const AddedTokens& added) {
  if (const AddedToken* token = added.find(id)) return token->pattern;
  return vocabulary.content(id);
}

TokenBytes decode_all(const Vocabulary& vocabulary, const AddedTokens& added, const TokenDecoder& decoder) {
  int32_t end = vocabulary.end();
  for (const AddedToken& token : added.all()) end = std::max(end, token.id + 1);
  TokenBytes out;
  out.begins.reserve(static_cast<size_t>(end) + 1);
  for (auto* flags : {&out.there, &out.special, &out.byte}) flags->resize(static_cast<size_t>(end));
  out.begins.push_back(0);
  for (int32_t id = 0; id < end; ++id) {
    const size_t i = static_cast<size_t>(id);
    if (const auto content = content_of(id, vocabulary, added)) {
      const std::string text = decoder.text(*content, false);
      const int byte = decoder.byte_of(text);
      out.bytes += byte < 0 ? text : std::string(1, static_cast<char>(byte));
      out.there[i] = true;
      out.byte[i] = byte >= 0;
      const AddedToken* token = added.find(id);
      out.special[i] = token != nullptr ? token->special : added.is_special(*content);
    }
    out.begins.push_back(out.bytes.size());
  }
  return out;
}

}  // namespace

struct Tokenizer::Parts {
  std::unique_ptr<Normalizer> normalizer;      // may be null
  std::unique_ptr<PreTokenizer> pretokenizer;  // may be null
  std::unique_ptr<TokenModel> model;
  AddedTokens added;
  Surroundings around;
  TokenDecoder decoder;
  TextEdges edges;
  TokenBytes tokens;
};

Tokenizer::Tokenizer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

std::unique_ptr<Tokenizer> Tokenizer::from_json(std::string_view text, std::string_view where) {
  json root;
  try {
    root = json::parse(text);
  } catch (const json::exception& error) {
    fail(ErrorCode::kInvalidFile, "{}: not valid JSON: {}", where, error.what());
  }
  const std::string file = fmt::format("{}:", where);
  const auto path = [&](std::string_view key) { return field_path(file, key); };
  if (!member(root, "version", file).is_null() && string_member(root, "version", file) != "1.0")
    fail(ErrorCode::kUnsupported, "{} \"{}\" is not supported; this build reads 1.0", path("version"),
         root["version"].get_ref<const std::string&>());
  auto parts = std::make_unique<Parts>();
  parts->normalizer = make_normalizer(member(root, "normalizer", file), path("normalizer"));
  parts->pretokenizer = make_pretokenizer(member(root, "pre_tokenizer", file), path("pre_tokenizer"));
  parts->model = make_token_model(member(root, "model", file), path("model"));
  parts->added.read(array_member(root, "added_tokens", file), parts->model->vocabulary(), parts->normalizer.get(),
                    path("added_tokens"));
  parts->around = make_surroundings(member(root, "post_processor", file), path("post_processor"));
  parts->decoder = make_token_decoder(member(root, "decoder", file), path("decoder"));
  parts->edges = {parts->decoder.strip, parts->decoder.strip_start, parts->decoder.strip_stop};
  parts->tokens = decode_all(parts->model->vocabulary(), parts->added, parts->decoder);
  for (const auto* ids : {&parts->around.before, &parts->around.after})
    for (const int32_t id : *ids)
      if (static_cast<size_t>(id) >= parts->tokens.special.size())
        fail(ErrorCode::kInvalidFile, "{}: the id {} is not in the vocabulary", path("post_processor"), id);
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(parts)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens, bool parse_special) const {
  std::vector<int32_t> ids;
  if (add_special_tokens) ids = parts_->around.before;
  std::string repaired;
  repaired.reserve(text.size());
  append_repaired_utf8(repaired, text, false);

  const auto encode_plain = [&](std::string_view plain, size_t at_start) {
    Pieces pieces(std::string(plain), at_start);
    if (parts_->pretokenizer) parts_->pretokenizer->split(pieces);
    for (size_t i = 0; i < pieces.spans.size(); ++i) parts_->model->encode(pieces.piece(i), ids);
  };
  // First the tokens to be found in the text as it is, then those in what the normalizer makes of the rest.
  std::vector<TextPart> raw;
  std::vector<TextPart> normal;
  parts_->added.split(repaired, false, parse_special, raw);
  for (const TextPart& part : raw) {
    if (part.id) {
      ids.push_back(*part.id);
      continue;
    }
    NormalizedText normalized{std::string(part.text)};
    if (part.text.data() == repaired.data()) normalized.at_start = code_point_at(part.text, 0).bytes;
    if (parts_->normalizer) parts_->normalizer->normalize(normalized);
    normal.clear();
    parts_->added.split(normalized.text, true, parse_special, normal);
    for (const TextPart& inner : normal) {
      if (inner.id) {
        ids.push_back(*inner.id);
      } else {
        const size_t begin = static_cast<size_t>(inner.text.data() - normalized.text.data());
        encode_plain(inner.text, normalized.at_start - std::min(normalized.at_start, begin));
      }
    }
  }
  if (add_special_tokens) ids.insert(ids.end(), parts_->around.after.begin(), parts_->around.after.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  StreamDetokenizer stream(*this, skip_special);
  std::string text;
  for (const int32_t id : ids) text += stream.push(id);
  return text + stream.finish();
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  const auto begin = parts_->tokens.begins.begin() + id;
  return std::string_view(parts_->tokens.bytes).substr(begin[0], begin[1] - begin[0]);
}

std::string Tokenizer::first_token_bytes(int32_t id) const {
  if (!parts_->decoder.first_differs || !has_token(id)) return std::string(token_bytes(id));
  const std::string text =
      parts_->decoder.text(*content_of(id, parts_->model->vocabulary(), parts_->added), /*first=*/true);
  const int byte = parts_->decoder.byte_of(text);
  return byte < 0 ? text : std::string(1, static_cast<char>(byte));
}

bool Tokenizer::has_token(int32_t id) const {
  return id >= 0 && id < vocab_size() && parts_->tokens.there[static_cast<size_t>(id)];
}
bool Tokenizer::has_byte_tokens() const { return parts_->decoder.byte_fallback; }
bool Tokenizer::is_byte(int32_t id) const { return has_token(id) && parts_->tokens.byte[static_cast<size_t>(id)]; }
const TextEdges& Tokenizer::edges() const { return parts_->edges; }

std::optional<int32_t> Tokenizer::token_id(std::string_view content) const {
  if (const AddedToken* token = parts_->added.find(content)) return token->id;
  return parts_->model->vocabulary().find(content);
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && parts_->tokens.special[static_cast<size_t>(id)];
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(parts_->tokens.special.size()); }

std::span<const int32_t> Tokenizer::ids_before() const { return parts_->around.before; }
std::span<const int32_t> Tokenizer::ids_after() const { return parts_->around.after; }

}  // namespace upg
