#include "pickle/document.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "pickle/machine.h"
#include "pickle/torch_sequence.h"

namespace upg::pickle {
namespace {

constexpr std::string_view kTorchPickle = "data.pkl";
constexpr std::array<std::string_view, 4> kPickleEndings = {".pkl", ".pickle", ".upg", ".p"};

std::string_view last_part(std::string_view name) { return name.substr(name.rfind('/') + 1); }

bool ends_as_pickle(std::string_view name) {
  return std::any_of(kPickleEndings.begin(), kPickleEndings.end(),
                     [&](std::string_view ending) { return name.ends_with(ending); });
}

}  // namespace

Document::Document(std::span<const std::byte> bytes, const std::string& where)
    : unpacked_bytes_(bytes.size()), load_([this](std::string_view key) { return storage(key); }) {
  if (is_zip(bytes)) {
    open_zip(bytes, where);
  } else if (is_torch_sequence(bytes)) {
    form_ = "a file of torch.save without ZIP archive";
    TorchSequence sequence = read_torch_sequence(bytes, where);
    tree_ = std::move(sequence.tree);
    storages_ = std::move(sequence.storages);
  } else {
    form_ = "a pickle";
    tree_ = read_pickle(bytes, where);
    if (tree_.end != bytes.size())
      fail(ErrorCode::kInvalidFile, "{}: {} bytes follow the pickle, which ends at byte {}", where,
           bytes.size() - tree_.end, tree_.end);
  }
  arrays_ = std::make_unique<ArrayReader>(tree_, load_);
}

const ZipArchive::Entry& Document::pickle_entry(const std::string& where) const {
  const auto only = [&](auto matches) -> const ZipArchive::Entry* {
    const ZipArchive::Entry* found = nullptr;
    for (const ZipArchive::Entry& entry : zip_->entries()) {
      if (!matches(std::string_view(entry.name))) continue;
      if (found != nullptr)
        fail(ErrorCode::kInvalidFile, "{}: both {} and {} could be the model's pickle; keep one in the archive", where,
             shown(found->name), shown(entry.name));
      found = &entry;
    }
    return found;
  };
  const ZipArchive::Entry* found = only([](std::string_view name) { return last_part(name) == kTorchPickle; });
  if (found == nullptr) found = only(ends_as_pickle);
  if (found == nullptr && zip_->entries().size() == 1) found = &zip_->entries().front();
  if (found == nullptr) fail(ErrorCode::kInvalidFile, "{}: a ZIP archive without a pickle", where);
  return *found;
}

void Document::open_zip(std::span<const std::byte> bytes, const std::string& where) {
  zip_.emplace(bytes, where);
  unpacked_bytes_ = zip_->total_bytes();
  const ZipArchive::Entry& entry = pickle_entry(where);
  const bool torch = last_part(entry.name) == kTorchPickle;
  form_ = torch ? "a file of torch.save" : "a pickle in a ZIP archive";
  folder_ = entry.name.substr(0, entry.name.rfind('/') + 1);
  if (const ZipArchive::Entry* order = zip_->find(folder_ + "byteorder")) {
    const Bytes text = zip_->read(*order);
    if (std::string_view(reinterpret_cast<const char*>(text.data.data()), text.data.size()) != "little")
      fail(ErrorCode::kUnsupported, "{}: was saved on a big-endian machine; save it again on a little-endian one",
           where);
  }
  pickle_ = zip_->read(entry);
  tree_ = read_pickle(pickle_.data, fmt::format("{}: {}", where, shown(entry.name)), {.persistent_ids = torch});
  if (tree_.end != pickle_.data.size())
    fail(ErrorCode::kInvalidFile, "{}: {} bytes follow the pickle, which ends at byte {}", tree_.where,
         pickle_.data.size() - tree_.end, tree_.end);
}

Bytes Document::storage(std::string_view key) {
  const auto missing = [&]() {
    fail(ErrorCode::kInvalidFile, "{}: storage \"{}\" is not in the file", tree_.where, shown(key));
  };
  if (!zip_) {
    const auto found = storages_.find(key);
    if (found == storages_.end()) missing();
    return {found->second, nullptr};
  }
  if (cached_.owner != nullptr && cached_key_ == key) return cached_;
  const ZipArchive::Entry* entry = zip_->find(fmt::format("{}data/{}", folder_, key));
  if (entry == nullptr) missing();
  cached_ = {};
  cached_ = zip_->read(*entry);
  cached_key_ = key;
  return cached_;
}

}  // namespace upg::pickle
