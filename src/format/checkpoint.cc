#include "format/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "base/error.h"
#include "format/json.h"

namespace upg {

namespace {

namespace fs = std::filesystem;

bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

/// What older checkpoints have in place of tokenizer.json.
constexpr const char* kVocabularyFiles[] = {"tokenizer.model", "spiece.model", "qwen.tiktoken", "cl100k_base.tiktoken"};

std::string read_if_there(const std::string& path) { return exists(path) ? read_file(path) : std::string(); }

/// tokenizer_config.json has the template as a string, or as a list of {"name", "template"} of which "default" counts.
std::string template_in(const Json& tokenizer_config) {
  const auto found = tokenizer_config.find("chat_template");
  if (found == tokenizer_config.end()) return {};
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) return {};
  for (const Json& each : *found) {
    if (!each.is_object() || each.value("name", Json()) != "default") continue;
    const auto text = each.find("template");
    if (text != each.end() && text->is_string()) return text->get<std::string>();
  }
  return {};
}

}  // namespace

ModelTexts read_model_texts(const std::string& dir) {
  ModelTexts texts;
  std::error_code ignored;
  if (!exists(dir)) fail(ErrorCode::kNotFound, "{}: no such folder", dir);
  if (!fs::is_directory(dir, ignored))
    fail(ErrorCode::kNotFound, "{}: not a folder; a checkpoint is a folder with config.json and model.safetensors",
         dir);
  const auto path = [&](const char* name) { return dir + "/" + name; };
  if (!exists(path("config.json")))
    fail(ErrorCode::kNotFound, "{}: config.json is missing; give the folder of a Hugging Face checkpoint", dir);
  texts.config = read_file(path("config.json"));
  parse_json_object(texts.config, path("config.json"));
  texts.generation_config = read_if_there(path("generation_config.json"));
  if (!texts.generation_config.empty()) parse_json_object(texts.generation_config, path("generation_config.json"));
  texts.tokenizer = read_if_there(path("tokenizer.json"));
  for (const char* name : kVocabularyFiles) {
    if (!texts.tokenizer.empty() || !texts.vocabulary.empty() || !exists(path(name))) continue;
    texts.vocabulary = read_file(path(name));
    texts.vocabulary_file = name;
  }
  texts.tokenizer_config = read_if_there(path("tokenizer_config.json"));
  texts.chat_template = read_if_there(path("chat_template.jinja"));
  if (!texts.tokenizer_config.empty()) {
    const Json config = parse_json_object(texts.tokenizer_config, path("tokenizer_config.json"));
    if (texts.chat_template.empty()) texts.chat_template = template_in(config);
  }
  return texts;
}

Checkpoint::Checkpoint(const std::string& dir) : dir_(dir), texts_(read_model_texts(dir)) { open_shards(); }

void Checkpoint::open_shards() {
  const std::string single = dir_ + "/model.safetensors", index = dir_ + "/model.safetensors.index.json";
  if (exists(single))
    shards_.push_back(SafetensorsFile::open(single));
  else if (exists(index))
    open_indexed_shards(index);
  else if (exists(dir_ + "/pytorch_model.bin") || exists(dir_ + "/pytorch_model.bin.index.json"))
    fail(ErrorCode::kNotFound,
         "{}: model.safetensors is missing; there is pytorch_model.bin: convert it with transformers, by "
         "save_pretrained(..., safe_serialization=True)",
         dir_);
  else
    fail(ErrorCode::kNotFound,
         "{}: neither model.safetensors nor model.safetensors.index.json is there; download the weights too", dir_);

  for (const SafetensorsFile& shard : shards_)
    tensors_.insert(tensors_.end(), shard.tensors().begin(), shard.tensors().end());
  std::sort(tensors_.begin(), tensors_.end(), [](const TensorView& a, const TensorView& b) { return a.name < b.name; });
  const auto twice = std::adjacent_find(tensors_.begin(), tensors_.end(),
                                        [](const TensorView& a, const TensorView& b) { return a.name == b.name; });
  if (twice != tensors_.end()) {
    std::vector<std::string> holders;
    for (const SafetensorsFile& shard : shards_)
      if (shard.find(twice->name) != nullptr) holders.push_back(shard.where());
    fail(ErrorCode::kInvalidFile, "{}: tensor {:?} is in two shards, {} and {}", dir_, twice->name, holders.at(0),
         holders.at(1));
  }
}

void Checkpoint::open_indexed_shards(const std::string& index_path) {
  const Json index = parse_json_object(read_file(index_path), index_path);
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object() || map->empty())
    fail(ErrorCode::kInvalidFile, "{}: \"weight_map\" is missing, empty or not an object", index_path);
  std::map<std::string, std::vector<std::string>> names_by_shard;
  for (const auto& [name, file] : map->items()) {
    if (!file.is_string()) fail(ErrorCode::kInvalidFile, "{}: shard of tensor {:?} is not a string", index_path, name);
    names_by_shard[file.get<std::string>()].push_back(name);
  }
  for (const auto& [file, names] : names_by_shard) {
    if (file.empty() || file == "." || file == ".." ||
        file.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos)
      fail(ErrorCode::kInvalidFile, "{}: shard {:?} is not a plain file name in the checkpoint's folder", index_path,
           file);
    const std::string path = dir_ + "/" + file;
    if (!exists(path))
      fail(ErrorCode::kNotFound, "{}: shard {:?} is missing; {} names it for {} tensors. Download it", dir_, file,
           index_path, names.size());
    shards_.push_back(SafetensorsFile::open(path));
    for (const std::string& name : names)
      if (shards_.back().find(name) == nullptr)
        fail(ErrorCode::kInvalidFile, "{}: tensor {:?} is not in {}, where the index says it is", index_path, name,
             path);
  }
}

const TensorView* Checkpoint::find(std::string_view name) const {
  const auto found =
      std::lower_bound(tensors_.begin(), tensors_.end(), name,
                       [](const TensorView& view, std::string_view wanted) { return view.name < wanted; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

}  // namespace upg
