#include "export/gguf_tokenizer.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "export/gguf_pretokenizers.h"
#include "format/json.h"
#include "text/base64.h"
#include "text/bpe.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_model.h"

namespace upg {
namespace {

using nlohmann::json;

constexpr std::string_view kSpace = "\u2581";  // SentencePiece's

// The format's numbers.
enum TokenKind : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

class Vocab {
 public:
  Vocab(const GgufTokenizerSource& source, std::vector<std::string>& notes)
      : s_(source),
        notes_(notes),
        file_(source.where + ": tokenizer.json"),
        tokenizer_(Tokenizer::from_json(source.tokenizer, file_)),
        root_(parse_json_object(source.tokenizer, file_)) {
    if (static_cast<uint64_t>(tokenizer_->vocab_size()) > s_.vocab)
      fail(ErrorCode::kUnsupported,
           "{}: cannot be exported to GGUF: {} tokens, but the embedding has {} rows; there must not be more tokens",
           file_, tokenizer_->vocab_size(), s_.vocab);
    tokens_.resize(s_.vocab);
    kinds_.assign(s_.vocab, kUnused);
    scores_.assign(s_.vocab, 0.0f);
  }

  GgufMetadata all() {
    const json& model = root_.at("model");
    const std::string type = model.value("type", "BPE");
    for (const Kind& kind : kKinds) {
      if (kind.type != type || kind.byte_level != is_byte_level(root_.value("pre_tokenizer", json()))) continue;
      (this->*kind.add)(model);
      add_added_tokens();
      add_lists(kind.scores);
      add_special_tokens();
      return std::move(metadata_);
    }
    refuse(fmt::format("a vocabulary of type {} without bytes", type));
  }

 private:
  struct Kind {
    std::string_view type;  // of "model"
    bool byte_level;
    bool scores;
    void (Vocab::*add)(const json& model);
  };
  static const Kind kKinds[3];

  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorCode::kUnsupported, "{}: cannot be exported to GGUF: llama.cpp does not have {}", file_, what);
  }

  void set(std::string_view key, GgufValue value) {
    metadata_.emplace_back(fmt::format("tokenizer.{}", key), std::move(value));
  }
  void set_id(std::string_view key, int32_t id) { set(key, GgufValue(static_cast<uint32_t>(id))); }

  void set_token(int64_t id, std::string content, int32_t kind, float score = 0) {
    const size_t i = static_cast<size_t>(id);  // below vocab: the tokenizer has read it
    tokens_.at(i) = std::move(content);
    kinds_[i] = kind;
    scores_[i] = score;
  }

  void add_bytes(const json& model) {
    const json normalizer = root_.value("normalizer", json());
    if (normalizer.is_object() && normalizer.value("type", "") == "NFC")
      notes_.push_back("llama.cpp does not compose characters (NFC) before it looks for tokens");
    else if (!normalizer.is_null())
      refuse("a normalizer of byte-level tokenizers");
    if (model.value("byte_fallback", false)) refuse("byte-level tokenizers with byte fallback");
    const GgufPreTokenizer& pre = gguf_pretokenizer(root_.at("pre_tokenizer"), model.value("ignore_merges", false),
                                                    whole_tokens_matter(model), file_);
    set("ggml.model", std::string("gpt2"));
    set("ggml.pre", std::string(pre.name));
    if (!pre.note.empty()) notes_.emplace_back(pre.note);
    for (const auto& [content, id] : model.at("vocab").items()) set_token(id.get<int64_t>(), content, kNormal);
    std::vector<std::string> merges;
    for_each_merge(model, [&](std::string_view left, std::string_view right) {
      if (left.find(' ') != std::string_view::npos || right.find(' ') != std::string_view::npos)
        refuse("merges with spaces");
      merges.push_back(fmt::format("{} {}", left, right));
    });
    set("ggml.merges", GgufValue(std::move(merges)));
  }

  // Whether some pieces that are tokens would be cut further by merges alone.
  bool whole_tokens_matter(json model) const {
    model["ignore_merges"] = false;
    const auto by_merges = make_token_model(model, file_);
    std::set<std::string> found_before;  // in the text, so that no piece is one of them
    for (const json& token : array_member(root_, "added_tokens", file_)) found_before.insert(token.at("content"));
    std::vector<int32_t> ids;
    for (const auto& [content, id] : model.at("vocab").items()) {
      if (found_before.contains(content)) continue;
      ids.clear();
      if (!content.empty()) by_merges->encode(content, ids);
      if (ids.size() > 1) return true;
    }
    return false;
  }

  void for_each_merge(const json& model, const std::function<void(std::string_view, std::string_view)>& f) const {
    Vocabulary vocabulary;
    vocabulary.read(model.at("vocab"), file_);
    each_merge(model.at("merges"), vocabulary, file_, f);
  }

  // llama.cpp merges the pair whose result has the highest score: the later a merge in the list, the lower.
  void add_sentencepiece(const json& model) {
    if (!model.value("byte_fallback", false)) refuse("BPE of characters without byte fallback");
    set("ggml.model", std::string("llama"));
    set("ggml.pre", std::string("default"));
    set("ggml.add_space_prefix", GgufValue(spaces(root_.value("normalizer", json()))));
    std::unordered_map<std::string, float> score;
    float next = 0;
    for_each_merge(model, [&](std::string_view left, std::string_view right) {
      if (score.emplace(std::string(left).append(right), next).second) --next;
    });
    unknown_ = tokenizer_->token_id(text_of(model, "unk_token"));
    for (const auto& [content, id] : model.at("vocab").items()) {
      const auto found = score.find(content);
      const int32_t kind = tokenizer_->is_byte(id.get<int32_t>()) ? kByte
                           : id.get<int32_t>() == unknown_        ? kUnknown
                                                                  : kNormal;
      set_token(id.get<int64_t>(), content, kind, found != score.end() ? found->second : next);
    }
  }

  void add_unigram(const json& model) {
    if (model.value("byte_fallback", false)) refuse("unigram vocabularies with byte fallback");
    set("ggml.model", std::string("t5"));
    set("ggml.pre", std::string("default"));
    set("ggml.add_space_prefix", GgufValue(spaces(root_.value("normalizer", json()))));
    set("ggml.remove_extra_whitespaces", GgufValue(merges_spaces_));
    if (!charsmap_.empty()) set("ggml.precompiled_charsmap", GgufValue(charsmap_));
    const json unknown = model.value("unk_id", json());
    if (unknown.is_number_integer()) unknown_ = unknown.get<int32_t>();
    int32_t id = 0;
    for (const json& entry : model.at("vocab")) {
      set_token(id, entry.at(0).get<std::string>(), id == unknown_ ? kUnknown : kNormal,
                static_cast<float>(entry.at(1).get<double>()));
      ++id;
    }
  }

  // Whether a space is put before a text. Everything that llama.cpp's two SentencePiece tokenizers do not do is
  // refused.
  bool spaces(const json& normalizer) {
    bool prefix = false;
    read_normalizer(normalizer, prefix);
    read_spaces(root_.value("pre_tokenizer", json()), prefix);
    return prefix;
  }

  void read_normalizer(const json& step, bool& prefix) {
    if (step.is_null()) return;
    const std::string type = step.value("type", "");
    const json pattern = step.value("pattern", json::object());
    const std::string content = text_of(step, "content");
    if (type == "Sequence") {
      for (const json& part : step.at("normalizers")) read_normalizer(part, prefix);
    } else if (type == "Prepend" && text_of(step, "prepend") == kSpace) {
      prefix = true;
    } else if (type == "Precompiled") {
      const auto bytes = decode_base64(text_of(step, "precompiled_charsmap"));
      if (bytes) charsmap_.assign(bytes->begin(), bytes->end());
    } else if (type == "Replace" && text_of(pattern, "Regex") == " {2,}") {
      merges_spaces_ = true;
    } else if (type == "Strip") {
      strips_ = true;  // merged spaces have none at the ends
    } else if (type != "Replace" || text_of(pattern, "String") != " " || content != kSpace) {
      refuse(fmt::format("the normalizer {}", step.dump()));
    }
    if (strips_ && !merges_spaces_ && type == "Sequence") refuse("a normalizer that only strips");
  }

  void read_spaces(const json& step, bool& prefix) {
    if (step.is_null()) return;
    const std::string type = step.value("type", "");
    if (type == "Sequence") {
      for (const json& part : step.at("pretokenizers")) read_spaces(part, prefix);
    } else if (type == "Metaspace") {
      const std::string scheme = text_of(step, "prepend_scheme");
      if (scheme.empty() ? step.value("add_prefix_space", true) : scheme != "never") prefix = true;
      if (scheme == "first") notes_.push_back("llama.cpp puts a space after special tokens too, not only at the start");
      if (prefix && !merges_spaces_) notes_.push_back("llama.cpp puts a space before texts that begin with one, too");
    } else if (type != "WhitespaceSplit" && !(type == "Split" && text_of(step.at("pattern"), "String") == " ")) {
      refuse(fmt::format("the pre-tokenizer {}", step.dump()));
    }
  }

  static std::string text_of(const json& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
  }

  void add_added_tokens() {
    bool strips = false;
    for (const json& token : array_member(root_, "added_tokens", file_)) {
      const auto id = token.at("id").get<int64_t>();
      const auto content = token.at("content").get<std::string>();
      const bool special = token.value("special", false);
      strips |= token.value("lstrip", false) || token.value("rstrip", false);
      const bool marked = content.find(kSpace) != std::string::npos;  // spaces in the text are found as plain tokens
      if (kinds_.at(static_cast<size_t>(id)) == kUnknown || (marked && !special)) {
        if (tokens_[static_cast<size_t>(id)].empty()) set_token(id, content, kNormal);
        continue;
      }
      set_token(id, content, special ? kControl : kUserDefined, scores_[static_cast<size_t>(id)]);
    }
    if (strips) notes_.push_back("llama.cpp keeps the white space next to special tokens that take it in");
  }

  void add_lists(bool scores) {
    std::set<std::string_view> taken;
    uint64_t filled = 0;
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (kinds_[i] == kUnused) {
        tokens_[i] = fmt::format("[PAD{}]", i);
        ++filled;
      }
      while (!taken.insert(tokens_[i]).second) tokens_[i] += fmt::format("[{}]", i);  // llama.cpp wants them different
    }
    if (filled != 0) notes_.push_back(fmt::format("{} ids without a token are filled up", filled));
    set("ggml.tokens", GgufValue(tokens_));
    if (scores) set("ggml.scores", GgufValue(scores_));
    set("ggml.token_type", GgufValue(kinds_));
  }

  void add_special_tokens() {
    const json config = s_.texts.tokenizer_config.empty()
                            ? json::object()
                            : parse_json_object(s_.texts.tokenizer_config, s_.where + ": tokenizer_config.json");
    const auto named = [&](const char* key) -> std::optional<int32_t> {
      const json value = config.value(key, json());
      const std::string content = value.is_object() ? text_of(value, "content") : text_of(config, key);
      return content.empty() ? std::nullopt : tokenizer_->token_id(content);
    };
    const auto around = [&](std::span<const int32_t> ids, std::string_view side) -> std::optional<int32_t> {
      if (ids.size() > 1) refuse(fmt::format("{} tokens {} a text; one is the most", ids.size(), side));
      return ids.empty() ? std::nullopt : std::optional(ids[0]);
    };
    const auto before = around(tokenizer_->ids_before(), "before"), after = around(tokenizer_->ids_after(), "after");
    if (const auto bos = before ? before : named("bos_token")) set_id("ggml.bos_token_id", *bos);
    std::vector<int32_t> ends = end_tokens(s_.texts, s_.where, s_.vocab);
    const auto first_end = after ? after : named("eos_token");
    if (first_end) {
      std::erase(ends, *first_end);
      ends.insert(ends.begin(), *first_end);
    }
    constexpr std::string_view kEnds[] = {"ggml.eos_token_id", "ggml.eot_token_id", "ggml.eom_token_id"};
    for (size_t i = 0; i < ends.size() && i < std::size(kEnds); ++i) set_id(kEnds[i], ends[i]);
    if (ends.size() > std::size(kEnds))
      notes_.push_back(fmt::format("GGUF has room for {} end tokens, the model has {}", std::size(kEnds), ends.size()));
    if (const auto unknown = unknown_ ? unknown_ : named("unk_token")) set_id("ggml.unknown_token_id", *unknown);
    if (const auto padding = named("pad_token")) set_id("ggml.padding_token_id", *padding);
    set("ggml.add_bos_token", GgufValue(before.has_value()));
    set("ggml.add_eos_token", GgufValue(after.has_value()));
  }

  const GgufTokenizerSource& s_;
  std::vector<std::string>& notes_;
  std::string file_;
  std::unique_ptr<Tokenizer> tokenizer_;  // its reading has checked every field that is used here
  json root_;
  std::vector<std::string> tokens_;
  std::vector<int32_t> kinds_;
  std::vector<float> scores_;
  std::vector<uint8_t> charsmap_;
  std::optional<int32_t> unknown_;
  bool merges_spaces_ = false, strips_ = false;
  GgufMetadata metadata_;
};

const Vocab::Kind Vocab::kKinds[3] = {
    {"BPE", true, false, &Vocab::add_bytes},
    {"BPE", false, true, &Vocab::add_sentencepiece},
    {"Unigram", false, true, &Vocab::add_unigram},
};

}  // namespace

GgufMetadata gguf_tokenizer(const GgufTokenizerSource& source, std::vector<std::string>& notes) {
  GgufMetadata metadata;
  if (source.tokenizer.empty()) {
    notes.push_back("the model has no tokenizer, so the file has none: it takes token ids only");
    metadata.emplace_back("tokenizer.ggml.model", std::string("none"));
    return metadata;
  }
  try {
    metadata = Vocab(source, notes).all();
  } catch (const json::exception& error) {
    fail(ErrorCode::kInvalidFile, "{}: tokenizer.json: {}", source.where, error.what());
  }
  if (!source.texts.chat_template.empty())
    metadata.emplace_back("tokenizer.chat_template", GgufValue(source.texts.chat_template));
  return metadata;
}

}  // namespace upg
