// Reads a Hugging Face checkpoint directory: configuration texts, and tensors from one or several safetensors shards.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor_view.h"
#include "format/model_texts.h"
#include "format/safetensors.h"

namespace upg {

/// The texts of a checkpoint directory. Throws as Checkpoint does where config.json is missing or a text is not JSON.
ModelTexts read_model_texts(const std::string& dir);

/// An open checkpoint. Views stay valid while the object (or one moved from it) lives; they may be unaligned, so read
/// them with read_floats() of format/convert.h.
class Checkpoint {
 public:
  /// Throws Error(kNotFound) naming the file that is missing and what to do, Error(kInvalidFile), Error(kIo).
  explicit Checkpoint(const std::string& dir);

  const std::string& dir() const { return dir_; }
  /// config is never empty; the chat template comes from chat_template.jinja, else from tokenizer_config.json.
  const ModelTexts& texts() const { return texts_; }
  /// Of all shards, sorted by name.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  /// Sorted by name of file.
  const std::vector<SafetensorsFile>& shards() const { return shards_; }
  /// nullptr where there is no such tensor.
  const TensorView* find(std::string_view name) const;

 private:
  void open_shards();
  void open_indexed_shards(const std::string& index_path);

  std::string dir_;
  ModelTexts texts_;
  std::vector<SafetensorsFile> shards_;
  std::vector<TensorView> tensors_;
};

}  // namespace upg
