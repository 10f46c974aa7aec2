#include "upg/export.h"

#include <fmt/ranges.h>

#include <chrono>
#include <filesystem>

#include "base/error.h"
#include "base/mapped_file.h"
#include "export/gguf_model.h"
#include "export/gguf_tokenizer.h"
#include "model/arch_table.h"
#include "model/weights.h"
#include "text/tokenizer_source.h"

namespace upg {
namespace {

constexpr std::string_view kGguf = "gguf";
constexpr uint32_t kQuantizationVersion = 2;  // of ggml's block formats

void release(const Weights& weights, const std::string& name) {
  const auto all = [](const auto& parts) {
    for (const TensorView& part : parts) release_pages(part.data);
  };
  if (const UpgFile* file = weights.upg_file())
    all(file->find(name)->parts);
  else
    all(std::span(weights.checkpoint()->find(name), 1));
}

std::string model_name(const std::string& source) {
  const std::filesystem::path path = std::filesystem::path(source).lexically_normal();
  const std::filesystem::path last = path.has_filename() ? path : path.parent_path();
  return (last.extension() == ".upg" ? last.stem() : last.filename()).string();
}

void export_gguf(const std::string& source, const std::string& target, const ExportOptions& options,
                 ExportReport& report) {
  const GgufType& type = *find_gguf_type(options.type);
  Weights weights(source);
  const std::string architecture = ConfigReader(weights.texts().config, source + ": config.json").architecture();
  const std::unique_ptr<Model> model = load_model(weights);
  const GgufFamily* family = find_gguf_family(architecture);
  if (family == nullptr)
    fail(ErrorCode::kUnsupported, "{}: cannot be exported to GGUF: llama.cpp does not have architecture \"{}\"", source,
         architecture);
  GgufSource gguf{model->decoder(), *family, source, {}};
  check_gguf(gguf);
  if (!family->note.empty()) gguf.notes.emplace_back(family->note);

  GgufMetadata metadata = {{"general.architecture", std::string(family->name)},
                           {"general.type", std::string("model")},
                           {"general.name", model_name(source)},
                           {"general.file_type", type.file_type},
                           {"general.quantization_version", kQuantizationVersion}};
  const auto add = [&](GgufMetadata more) { std::move(more.begin(), more.end(), std::back_inserter(metadata)); };
  add(gguf_hyperparameters(gguf));
  add(gguf_tokenizer({weights.texts(), tokenizer_json(weights.texts(), source), source, gguf.decoder.vocab},
                     gguf.notes));
  const std::vector<GgufTensor> tensors =
      gguf_tensors(gguf, type, [&](const std::string& name) { release(weights, name); });

  uint64_t done = 0;
  for (const GgufTensor& tensor : tensors) report.parameters += tensor.elements();
  const auto advance = [&](uint64_t n) {
    done += n;
    if (options.progress && !options.progress("exporting", done, report.parameters))
      fail(ErrorCode::kCancelled, "exporting was cancelled");
  };
  ThreadPool pool(options.threads);
  report.file_bytes = write_gguf(target, metadata, tensors, pool, advance);
  report.tensors = tensors.size();
  report.architecture = family->name;
  report.notes = std::move(gguf.notes);
}

// THE list of formats.
struct Format {
  std::string_view name;
  void (*write)(const std::string& source, const std::string& target, const ExportOptions& options,
                ExportReport& report);
};
constexpr Format kFormats[] = {{kGguf, export_gguf}};

}  // namespace

std::span<const ExportType> export_types() {
  static const std::vector<ExportType> kTypes = [] {
    std::vector<ExportType> types;
    for (const GgufType& type : gguf_types())
      types.push_back({kGguf, type.name, 8 * static_cast<double>(type.block_bytes) / static_cast<double>(type.block)});
    return types;
  }();
  return kTypes;
}

ExportReport export_model(const std::string& source, const std::string& target, const ExportOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const Format* format = nullptr;
  for (const Format& f : kFormats)
    if (f.name == options.format) format = &f;
  std::vector<std::string_view> known;
  for (const Format& f : kFormats) known.push_back(f.name);
  if (format == nullptr)
    fail(ErrorCode::kInvalidArgument, "the format \"{}\" is not known; there is {}", options.format,
         fmt::join(known, ", "));
  known.clear();
  bool found = false;
  for (const ExportType& type : export_types()) {
    if (type.format != options.format) continue;
    known.push_back(type.type);
    found |= type.type == options.type;
  }
  if (!found)
    fail(ErrorCode::kInvalidArgument, "{} files of type \"{}\" are not written; there are {}", options.format,
         options.type, fmt::join(known, ", "));
  std::error_code ignored;
  if (!options.overwrite && std::filesystem::exists(target, ignored))
    fail(ErrorCode::kInvalidArgument, "{} is there already; choose another name, or ask for it to be replaced", target);
  ExportReport report;
  report.path = target;
  report.format = options.format;
  report.type = options.type;
  format->write(source, target, options, report);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace upg
