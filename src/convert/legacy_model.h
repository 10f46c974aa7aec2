// What a 1.0 file means: a pickled dict of layers in CSR form, as weights that a 2.0 file stores. docs/migration.md has
// the layout.
#pragma once

#include <set>

#include "convert/source.h"
#include "pickle/document.h"

namespace upg {

class LegacyModel : public ConvertSource {
 public:
  /// `bytes` must outlive the object; `where` begins messages. Throws Error.
  LegacyModel(std::span<const std::byte> bytes, const std::string& where);

  std::string_view version() const override { return "1.0"; }
  std::string_view form() const override { return document_.form(); }
  /// Empty where the file has none.
  const ModelTexts& texts() const override { return texts_; }
  const std::vector<Item>& items() const override { return items_; }
  StoredWeight load(size_t index) const override;

 private:
  void read_version();
  void read_model();
  void read_layers();
  uint64_t array_bytes(const pickle::Value& value, std::string_view what) const;
  StoredWeight dense(const pickle::Value& value, std::string_view what) const;
  StoredWeight matrix(const pickle::Value& layer, std::string_view what) const;
  const pickle::Value& require(const pickle::Value& layer, std::string_view key, std::string_view what) const;

  std::string where_;
  pickle::Document document_;
  ModelTexts texts_;
  std::vector<Item> items_;
  std::vector<const pickle::Value*> layers_;  // of items_
};

}  // namespace upg
