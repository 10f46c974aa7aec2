// A pickle as a file holds it: plain, in a ZIP archive, or as torch.save writes it in either form.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "pickle/arrays.h"
#include "pickle/value.h"
#include "pickle/zip_archive.h"

namespace upg::pickle {

class Document {
 public:
  /// `bytes` must outlive the object; `where` begins messages. Of an archive, the pickle is `data.pkl`, in a folder or
  /// not, beside the folder `data` of storages; else the only file with a pickle's name, or the only one. Throws Error.
  Document(std::span<const std::byte> bytes, const std::string& where);
  Document(const Document&) = delete;

  const Tree& tree() const { return tree_; }
  const Value& top() const { return tree_.top(); }
  const ArrayReader& arrays() const { return *arrays_; }
  /// Of the file, unpacked: what its arrays can hold together, unless they share their bytes.
  uint64_t unpacked_bytes() const { return unpacked_bytes_; }
  /// "a pickle", "a pickle in a ZIP archive", ...
  std::string_view form() const { return form_; }

 private:
  void open_zip(std::span<const std::byte> bytes, const std::string& where);
  const ZipArchive::Entry& pickle_entry(const std::string& where) const;
  Bytes storage(std::string_view key);

  std::string_view form_;
  std::optional<ZipArchive> zip_;
  std::string folder_;  // of data.pkl, with its slash
  Bytes pickle_;        // of a ZIP archive
  Tree tree_;
  std::map<std::string, std::span<const std::byte>, std::less<>> storages_;  // of a torch sequence
  std::string cached_key_;  // tensors that share a storage come one after the other
  Bytes cached_;
  uint64_t unpacked_bytes_ = 0;
  Storages load_;
  std::unique_ptr<ArrayReader> arrays_;
};

}  // namespace upg::pickle
