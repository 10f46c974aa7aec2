#include "upg/inspect.h"

#include <vector>

#include "base/error.h"
#include "codec/codec_table.h"
#include "format/checkpoint_writer.h"
#include "format/convert.h"
#include "model/arch_table.h"
#include "model/weights.h"

namespace upg {
namespace {

void report(const Progress& progress, std::string_view stage, uint64_t done, uint64_t total) {
  if (progress && !progress(stage, done, total)) fail(ErrorCode::kCancelled, "{} was cancelled", stage);
}

}  // namespace

ModelReport inspect(const std::string& path) {
  const Weights weights(path);
  ModelReport model;
  model.path = path;
  model.architecture = ConfigReader(weights.texts().config, path + ": config.json").architecture();
  model.format = weights.compressed() ? "UPG " + weights.upg_file()->version() : "checkpoint";
  model.file_bytes = weights.file_bytes();
  for (const WeightInfo& weight : weights.list()) {
    uint64_t elements = 1;
    for (uint64_t dim : weight.shape) elements *= dim;
    TensorReport tensor{weight.name, weight.shape, weight.codec, weight.stored_bytes, 0, weight.relative_error, {}};
    if (elements > 0) tensor.bits_per_weight = 8.0 * static_cast<double>(tensor.bytes) / static_cast<double>(elements);
    model.parameters += elements;
    model.weight_bytes += tensor.bytes;
    model.tensors.push_back(std::move(tensor));
  }
  if (model.parameters > 0 && model.weight_bytes > 0) {
    model.bits_per_weight = 8.0 * static_cast<double>(model.weight_bytes) / static_cast<double>(model.parameters);
    model.ratio_fp32 = 4.0 * static_cast<double>(model.parameters) / static_cast<double>(model.weight_bytes);
  }
  return model;
}

void verify(const std::string& path, const Progress& progress) {
  Weights weights(path);
  if (!weights.compressed())
    fail(ErrorCode::kInvalidArgument, "{} is not a UPG file: only those carry checksums", path);
  weights.upg_file()->verify_checksums(
      [&](uint64_t done, uint64_t total) { report(progress, "verifying", done, total); });
  load_model(weights);  // validates every matrix and vector, and that none is missing or extra
}

void decompress(const std::string& path, const std::string& target, const Progress& progress) {
  Weights weights(path);
  if (!weights.compressed()) fail(ErrorCode::kInvalidArgument, "{} is not a UPG file: it is not compressed", path);
  load_model(weights);
  const ConfigReader config(weights.texts().config, path + ": config.json");
  const std::string named = config.string("torch_dtype", config.string("dtype", "bfloat16"));
  const DType dtype = named == "float32" ? DType::kF32 : named == "float16" ? DType::kF16 : DType::kBF16;

  std::vector<CheckpointTensor> tensors;
  for (const UpgEntry& entry : weights.upg_file()->entries()) {
    CheckpointTensor tensor{entry.name, dtype, entry.shape, {}};
    if (entry.shape.size() == 2) {
      tensor.read = [matrix = weights.matrix(entry.name, entry.shape[0], entry.shape[1])](uint64_t first,
                                                                                          std::span<float> out) {
        for (uint64_t done = 0; done < out.size(); done += matrix.cols)
          matrix.codec->decode_row(matrix, (first + done) / matrix.cols, out.data() + done);
      };
    } else {
      tensor.dtype = entry.parts.at(0).dtype;
      tensor.read = [part = entry.parts.at(0)](uint64_t first, std::span<float> out) { read_floats(part, first, out); };
    }
    tensors.push_back(std::move(tensor));
  }
  CheckpointWriteOptions options;
  options.progress = [&](uint64_t done, uint64_t total) { report(progress, "decompressing", done, total); };
  write_checkpoint(target, weights.texts(), tensors, options);
}

}  // namespace upg
