// The list of decoders, and each of them.
#include "text/tokenizer_decoder.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/metaspace.h"
#include "text/pretokenizer.h"
#include "text/pretokenizer_regex.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace upg {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxStrip = 1 << 16;
constexpr size_t kMaxTokenBytes = 1 << 16;  // of what a decoder makes of one token

// What the tokens are after the decoders read so far.
enum class Stage { kTokens, kBytes, kText };

struct Chain {
  TokenDecoder& decoder;
  Stage stage = Stage::kTokens;
  size_t count = 0;
};

void apply(const json& object, std::string_view where, int depth, Chain& chain);

void need_tokens(const Chain& chain, std::string_view where) {
  if (chain.stage != Stage::kTokens)
    fail(ErrorCode::kUnsupported, "{}: supported only before ByteFallback, ByteLevel and Fuse", where);
}

void apply_sequence(const json& object, std::string_view where, int depth, Chain& chain) {
  const json& parts = array_member(object, "decoders", where);
  check_steps(chain.count += parts.size(), where);
  for (size_t i = 0; i < parts.size(); ++i) apply(parts[i], fmt::format("{}.decoders[{}]", where, i), depth + 1, chain);
}

// A token with any character outside the byte alphabet stands for itself.
void apply_byte_level(const json&, std::string_view where, int, Chain& chain) {
  need_tokens(chain, where);
  chain.stage = Stage::kText;
  chain.decoder.steps.push_back([](std::string token, bool) {
    std::string out;
    for (size_t at = 0; at < token.size();) {
      const CodePoint c = code_point_at(token, at);
      const int byte = byte_level_byte(c.value);
      if (byte < 0) return token;
      out += static_cast<char>(byte);
      at += c.bytes;
    }
    return out;
  });
}

void apply_replace(const json& object, std::string_view where, int, Chain& chain) {
  need_tokens(chain, where);
  const auto regex = std::make_shared<Regex>(regex_member(object, "pattern", where));
  chain.decoder.steps.push_back([regex, content = string_member(object, "content", where)](std::string token, bool) {
    if (token.empty()) return token;
    std::vector<Match> matches;
    regex->find_all(token, matches);
    std::string out;
    for (const Match& match : matches) {
      out += match.matched ? std::string_view(content)
                           : std::string_view(token).substr(match.begin, match.end - match.begin);
      if (out.size() > kMaxTokenBytes)
        fail(ErrorCode::kUnsupported, "the decoder makes more than {} bytes of a token", kMaxTokenBytes);
    }
    return out;
  });
}

// The first token of a text loses all of its spaces, where a prefix is put before texts.
void apply_metaspace(const json& object, std::string_view where, int, Chain& chain) {
  need_tokens(chain, where);
  const bool drops = metaspace_prefix(object, where) != MetaspacePrefix::kNever;
  chain.decoder.first_differs = chain.decoder.first_differs || drops;
  chain.decoder.steps.push_back([drops, space = metaspace_replacement(object, where)](std::string token, bool first) {
    std::string out;
    for (size_t at = 0; at < token.size();) {
      const std::string_view character = std::string_view(token).substr(at, code_point_at(token, at).bytes);
      at += character.size();
      if (character != space) {
        out += character;
      } else if (!(first && drops)) {
        out += ' ';
      }
    }
    return out;
  });
}

void apply_byte_fallback(const json&, std::string_view where, int, Chain& chain) {
  need_tokens(chain, where);
  chain.stage = Stage::kBytes;
  chain.decoder.byte_fallback = true;
}

void apply_fuse(const json&, std::string_view, int, Chain& chain) { chain.stage = Stage::kText; }

size_t strip_member(const json& object, std::string_view key, std::string_view where) {
  const json& value = member(object, key, where);
  if (!value.is_number_unsigned() || value.get<uint64_t>() > kMaxStrip)
    fail(ErrorCode::kInvalidFile, "{} must be a number up to {}, not {}", field_path(where, key), kMaxStrip,
         value.dump());
  return value.get<size_t>();
}

void apply_strip(const json& object, std::string_view where, int, Chain& chain) {
  const std::string& content = string_member(object, "content", where);
  if (content.empty() || code_point_at(content, 0).bytes != content.size())
    fail(ErrorCode::kInvalidFile, "{} must be one character", field_path(where, "content"));
  const size_t start = strip_member(object, "start", where);
  const size_t stop = strip_member(object, "stop", where);
  if (chain.stage == Stage::kText && chain.decoder.strip.empty()) {
    chain.decoder.strip = content;
    chain.decoder.strip_start = start;
    chain.decoder.strip_stop = stop;
    return;
  }
  need_tokens(chain, where);
  chain.decoder.steps.push_back([content, start, stop](std::string token, bool) {
    std::string_view text = token;
    for (size_t i = 0; i < start && text.starts_with(content); ++i) text.remove_prefix(content.size());
    for (size_t i = 0; i < stop && text.ends_with(content); ++i) text.remove_suffix(content.size());
    return std::string(text);
  });
}

struct DecoderRow {
  std::string_view name;
  void (*apply)(const json& object, std::string_view where, int depth, Chain& chain);
};
constexpr DecoderRow kDecoders[] = {
    {"Sequence", apply_sequence},   {"ByteLevel", apply_byte_level},       {"Replace", apply_replace},
    {"Metaspace", apply_metaspace}, {"ByteFallback", apply_byte_fallback}, {"Fuse", apply_fuse},
    {"Strip", apply_strip},
};

void apply(const json& object, std::string_view where, int depth, Chain& chain) {
  check_nesting(depth, where);
  row_for_type(kDecoders, object, where).apply(object, where, depth, chain);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

std::string TokenDecoder::text(std::string_view content, bool first) const {
  std::string token(content);
  for (const Step& step : steps) token = step(std::move(token), first);
  return token;
}

int TokenDecoder::byte_of(std::string_view text) const {
  if (!byte_fallback || text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  const int high = hex_digit(text[3]);
  const int low = hex_digit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

TokenDecoder make_token_decoder(const json& object, std::string_view where) {
  if (object.is_null()) fail(ErrorCode::kUnsupported, "{} is null or absent; one is needed", where);
  TokenDecoder decoder;
  Chain chain{decoder};
  apply(object, where, 0, chain);
  return decoder;
}

}  // namespace upg
