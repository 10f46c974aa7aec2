#include "hub/select.h"

#include <fnmatch.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "format/json.h"

namespace upg::hub {
namespace {

constexpr const char* kWeights = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

/// Beside the weights: what src/format/checkpoint.cc and transformers read.
constexpr const char* kSmallFiles[] = {"config.json",
                                       "generation_config.json",
                                       "tokenizer.json",
                                       "tokenizer_config.json",
                                       "chat_template.jinja",
                                       "chat_template.json",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "vocab.json",
                                       "merges.txt",
                                       "tokenizer.model",
                                       "spiece.model",
                                       "qwen.tiktoken",
                                       "cl100k_base.tiktoken"};

const HubFile* find(const std::vector<HubFile>& listing, std::string_view name) {
  const auto found = std::find_if(listing.begin(), listing.end(), [&](const HubFile& f) { return f.name == name; });
  return found == listing.end() ? nullptr : &*found;
}

bool matches(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& p) { return ::fnmatch(p.c_str(), name.c_str(), 0) == 0; });
}

// Names of files that end so, for messages.
std::string names_with(const std::vector<HubFile>& files, std::string_view ending) {
  constexpr int kMost = 12;
  std::string text;
  int n = 0;
  for (const HubFile& file : files)
    if (file.name.ends_with(ending) && ++n <= kMost) text += (n > 1 ? ", " : "") + printable(file.name);
  return n > kMost ? fmt::format("{} and {} more", text, n - kMost) : text;
}

[[noreturn]] void no_model(const std::vector<HubFile>& listing, const ModelName& name, ModelForm form) {
  const std::string weights = names_with(listing, ".bin"), gguf = names_with(listing, ".gguf"),
                    upg = names_with(listing, ".upg");
  if (form == ModelForm::kCheckpoint && !upg.empty())
    fail(ErrorCode::kNotFound, "{}: there is no checkpoint to compress, only {}", name.id, upg);
  if (!weights.empty())
    fail(ErrorCode::kNotFound,
         "{}: there is no model.safetensors, only {}: convert it with transformers, by save_pretrained(..., "
         "safe_serialization=True)",
         name.id, weights);
  if (!gguf.empty())
    fail(ErrorCode::kNotFound, "{}: there is no model.safetensors, only {}: take the repository it was made from",
         name.id, gguf);
  fail(ErrorCode::kNotFound,
       "{}: there is no model in it: neither config.json with model.safetensors (or its index) nor a .upg file",
       name.id);
}

}  // namespace

Selection select_files(const std::vector<HubFile>& listing, const ModelName& name, const HubOptions& options,
                       ModelForm form) {
  Selection selection;
  if (!name.file.empty() && form == ModelForm::kCheckpoint)
    fail(ErrorCode::kInvalidArgument, "{}/{}: a checkpoint is asked for, not a UPG file; leave the file's name out",
         name.id, name.file);
  if (!options.include.empty()) {
    for (const HubFile& file : listing)
      if (matches(options.include, file.name) && !matches(options.exclude, file.name)) selection.files.push_back(file);
    if (selection.files.empty()) fail(ErrorCode::kNotFound, "{}: no file matches --include and --exclude", name.id);
    std::stable_sort(selection.files.begin(), selection.files.end(),
                     [](const HubFile& a, const HubFile& b) { return a.bytes < b.bytes; });
    if (selection.files.size() == 1 && selection.files[0].name.ends_with(".upg"))
      selection.upg = selection.files[0].name;
    return selection;
  }
  const bool checkpoint = find(listing, "config.json") && (find(listing, kWeights) || find(listing, kIndex));
  std::vector<HubFile> upg;
  for (const HubFile& file : listing)
    if (file.name.ends_with(".upg") && (name.file.empty() || file.name == name.file) &&
        !matches(options.exclude, file.name))
      upg.push_back(file);
  if (!name.file.empty() && upg.empty())
    fail(ErrorCode::kNotFound, "{}: there is no file {:?}; UPG files there: {}", name.id, name.file,
         names_with(listing, ".upg").empty() ? "none" : names_with(listing, ".upg"));
  if (form == ModelForm::kAny && upg.size() > 1)
    fail(ErrorCode::kNotFound, "{}: there are several UPG files: {}. Choose one, as in {}/{}", name.id,
         names_with(upg, ".upg"), name.id, upg[0].name);
  if (form == ModelForm::kAny && upg.size() == 1) {
    selection.files = upg;
    selection.upg = upg[0].name;
    return selection;
  }
  if (!checkpoint) no_model(listing, name, form);
  const auto add = [&](const char* file) {
    const HubFile* found = find(listing, file);
    if (found && !matches(options.exclude, found->name)) selection.files.push_back(*found);
    return found != nullptr;
  };
  for (const char* file : kSmallFiles) add(file);
  if (!add(kWeights) && add(kIndex)) selection.index = kIndex;
  return selection;
}

std::vector<HubFile> shards_of_index(const std::string& index, const std::vector<HubFile>& listing,
                                     const ModelName& name) {
  const std::string where = fmt::format("{}: {}", name.id, kIndex);
  const Json json = parse_json_object(index, where);
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object())
    fail(ErrorCode::kInvalidFile, "{}: \"weight_map\" is missing or not an object", where);
  std::set<std::string> shards;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || file.get_ref<const std::string&>().find('/') != std::string::npos ||
        !is_safe_file_name(file.get_ref<const std::string&>()))
      fail(ErrorCode::kInvalidFile, "{}: the shard of tensor {:?} is no plain file name", where, printable(tensor));
    shards.insert(file.get<std::string>());
  }
  std::vector<HubFile> files;
  for (const std::string& shard : shards) {
    const HubFile* found = find(listing, shard);
    if (!found) fail(ErrorCode::kNotFound, "{}: it names the shard {:?}, which is not there", where, printable(shard));
    files.push_back(*found);
  }
  return files;
}

}  // namespace upg::hub
