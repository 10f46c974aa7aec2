#include "format/checkpoint_writer.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <set>
#include <string_view>

#include "base/checked.h"
#include "base/error.h"
#include "base/tensor_view.h"
#include "format/convert.h"
#include "format/json.h"
#include "format/safetensors_writer.h"

namespace upg {

namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 6> kTextFiles = {"config.json",         "generation_config.json",
                                                        "tokenizer.json",      "tokenizer_config.json",
                                                        "chat_template.jinja", "model.safetensors.index.json"};
constexpr uint64_t kPieceElements = uint64_t{1} << 20;  // converted at a time, rounded to whole rows

/// Elements of the tensor; checks what the caller declared.
uint64_t checked_elements(const CheckpointTensor& tensor) {
  const auto elements = checked_product(tensor.shape);
  if (!elements || *elements > (uint64_t{1} << 56))
    fail(ErrorCode::kInvalidArgument, "tensor {:?}: shape {} is too large", tensor.name, shape_string(tensor.shape));
  if (tensor.dtype != DType::kBF16 && tensor.dtype != DType::kF16 && tensor.dtype != DType::kF32)
    fail(ErrorCode::kUnsupported, "tensor {:?}: cannot write floats as {}; BF16, F16 and F32 are possible", tensor.name,
         dtype_info(tensor.dtype).name);
  return *elements;
}

void prepare_folder(const std::string& dir) {
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) fail(ErrorCode::kIo, "cannot create folder {}: {}", dir, error.message());
  auto each = fs::directory_iterator(dir, error);
  if (error) fail(ErrorCode::kIo, "cannot read folder {}: {}", dir, error.message());
  for (; each != fs::directory_iterator(); each.increment(error)) {
    const std::string name = each->path().filename().string();
    if (std::find(kTextFiles.begin(), kTextFiles.end(), name) != kTextFiles.end() || name.ends_with(".safetensors"))
      fail(ErrorCode::kInvalidArgument, "{} already holds a checkpoint's {}; choose another folder", dir, name);
    if (error) fail(ErrorCode::kIo, "cannot read folder {}: {}", dir, error.message());
  }
}

/// Cuts the list into shards in its order: each takes tensors while they fit, at least one.
std::vector<std::span<const CheckpointTensor>> cut_shards(std::span<const CheckpointTensor> tensors,
                                                          uint64_t max_bytes) {
  std::vector<std::span<const CheckpointTensor>> shards;
  size_t begin = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const uint64_t size = checked_elements(tensors[i]) * dtype_info(tensors[i].dtype).bytes;
    if (i > begin && (size > max_bytes || bytes > max_bytes - size)) {
      shards.push_back(tensors.subspan(begin, i - begin));
      begin = i;
      bytes = 0;
    }
    bytes += size;
  }
  shards.push_back(tensors.subspan(begin));
  return shards;
}

/// Converts and streams one tensor; `advance` is told the elements done.
void write_tensor(SafetensorsWriter& writer, const CheckpointTensor& tensor,
                  const std::function<void(uint64_t)>& advance) {
  const uint64_t elements = checked_elements(tensor);
  if (elements == 0) return;
  const uint64_t cols = tensor.shape.empty() ? 1 : tensor.shape.back();
  const uint64_t piece = std::min(elements, std::max<uint64_t>(1, kPieceElements / cols) * cols);
  std::vector<float> values(piece);
  std::vector<std::byte> stored(piece * dtype_info(tensor.dtype).bytes);
  for (uint64_t first = 0; first < elements; first += piece) {
    const auto part = std::span(values).first(std::min(piece, elements - first));
    const auto bytes = std::span(stored).first(part.size() * dtype_info(tensor.dtype).bytes);
    tensor.read(first, part);
    write_floats(tensor.dtype, part, bytes);
    writer.append(tensor.name, bytes);
    advance(part.size());
  }
}

}  // namespace

void write_checkpoint(const std::string& dir, const ModelTexts& texts, const std::vector<CheckpointTensor>& tensors,
                      const CheckpointWriteOptions& options) {
  parse_json_object(texts.config, "config.json");
  std::set<std::string> names;
  uint64_t done = 0, total = 0, total_bytes = 0;
  for (const CheckpointTensor& tensor : tensors) {
    total += checked_elements(tensor);
    total_bytes += checked_elements(tensor) * dtype_info(tensor.dtype).bytes;
    if (!names.insert(tensor.name).second)
      fail(ErrorCode::kInvalidArgument, "tensor name {:?} is used twice", tensor.name);
  }
  prepare_folder(dir);

  const auto shards = cut_shards(tensors, options.max_shard_bytes);
  std::vector<std::unique_ptr<SafetensorsWriter>> writers;  // committed together, when all data are on the disk
  std::vector<std::string> files;
  Json weight_map = Json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    files.push_back(shards.size() == 1 ? "model.safetensors"
                                       : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size()));
    writers.push_back(std::make_unique<SafetensorsWriter>(dir + "/" + files.back(),
                                                          std::map<std::string, std::string>{{"format", "pt"}}));
    for (const CheckpointTensor& tensor : shards[i]) {
      writers.back()->declare(tensor.name, tensor.dtype, tensor.shape);
      weight_map[tensor.name] = files.back();
    }
    for (const CheckpointTensor& tensor : shards[i])
      write_tensor(*writers.back(), tensor, [&](uint64_t n) {
        done += n;
        if (options.progress) options.progress(done, total);
      });
  }

  std::vector<std::string> created;
  const auto add_text = [&](const char* name, const std::string& text) {
    if (text.empty()) return;
    created.push_back(dir + "/" + name);
    write_file(created.back(), text);
  };
  try {
    for (size_t i = 0; i < writers.size(); ++i) {
      created.push_back(dir + "/" + files[i]);
      writers[i]->commit();
    }
    if (writers.size() > 1) {
      const Json index = {{"metadata", {{"total_size", total_bytes}}}, {"weight_map", weight_map}};
      add_text("model.safetensors.index.json", json_text(index, "tensor names"));
    }
    add_text("generation_config.json", texts.generation_config);
    add_text("tokenizer.json", texts.tokenizer);
    add_text("tokenizer_config.json", texts.tokenizer_config);
    add_text("chat_template.jinja", texts.chat_template);
    add_text("config.json", texts.config);  // last: it is what makes the folder a checkpoint
  } catch (...) {
    for (const std::string& path : created) {
      std::error_code ignored;
      fs::remove(path, ignored);
    }
    throw;
  }
}

}  // namespace upg
