// The list of models, and the vocabulary they share.
#include "text/tokenizer_model.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/bpe.h"
#include "text/tokenizer_json.h"
#include "text/unigram.h"

namespace upg {
namespace {

struct ModelRow {
  std::string_view name;
  std::unique_ptr<TokenModel> (*make)(const nlohmann::json& json, std::string_view where);
};
constexpr ModelRow kModels[] = {
    {"BPE", make_bpe},
    {"Unigram", make_unigram},
};

}  // namespace

void Vocabulary::read(const nlohmann::json& json, std::string_view where) {
  if (!json.is_object())
    fail(ErrorCode::kInvalidFile, "{} must be an object of token ids, not {}", where, json.type_name());
  size_t bytes = 0;
  int32_t highest = -1;
  for (const auto& [content, value] : json.items()) {
    bytes += content.size();
    highest = std::max(highest, token_id_of(value, where));
  }
  arena_.reserve(bytes);  // never reallocated below
  ids_.reserve(json.size());
  contents_.resize(static_cast<size_t>(highest) + 1);
  for (const auto& [content, value] : json.items()) {
    const int32_t id = token_id_of(value, where);
    std::string_view& slot = contents_[static_cast<size_t>(id)];
    if (slot.data() != nullptr)
      fail(ErrorCode::kInvalidFile, "{}: \"{}\" and \"{}\" have the id {}", where, slot, content, id);
    const size_t begin = arena_.size();
    arena_ += content;
    slot = std::string_view(arena_.data() + begin, content.size());
    ids_.emplace(slot, id);
  }
}

void Vocabulary::assign(const std::vector<std::string_view>& contents) {
  size_t bytes = 0;
  for (const std::string_view content : contents) bytes += content.size();
  arena_.reserve(bytes + 1);  // never reallocated below, and never null
  contents_.reserve(contents.size());
  for (const std::string_view content : contents) {
    const size_t begin = arena_.size();
    arena_ += content;
    contents_.emplace_back(arena_.data() + begin, content.size());
    ids_.insert_or_assign(contents_.back(), static_cast<int32_t>(contents_.size() - 1));
  }
}

std::array<int32_t, 256> byte_tokens(const Vocabulary& vocabulary) {
  std::array<int32_t, 256> ids;
  for (size_t byte = 0; byte < ids.size(); ++byte)
    ids[byte] = vocabulary.find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
  return ids;
}

std::optional<int32_t> Vocabulary::find(std::string_view content) const {
  const auto found = ids_.find(content);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

std::optional<std::string_view> Vocabulary::content(int32_t id) const {
  if (id < 0 || id >= end()) return std::nullopt;
  const std::string_view content = contents_[static_cast<size_t>(id)];
  if (content.data() == nullptr) return std::nullopt;
  return content;
}

std::unique_ptr<TokenModel> make_token_model(const nlohmann::json& json, std::string_view where) {
  // Files of early versions leave the type out; only BPE has merges.
  if (member(json, "type", where).is_null() && !member(json, "merges", where).is_null()) return make_bpe(json, where);
  return row_for_type(kModels, json, where).make(json, where);
}

}  // namespace upg
