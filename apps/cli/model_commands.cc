// compress, convert, inspect, verify, decompress: everything that makes or looks at files.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <memory>

#include "command.h"
#include "hub_options.h"
#include "upg/compress.h"
#include "upg/convert.h"
#include "upg/inspect.h"

namespace upg::cli {
namespace {

nlohmann::ordered_json to_json(const ModelReport& report) {
  nlohmann::ordered_json json = {{"path", report.path},
                                 {"architecture", report.architecture},
                                 {"format", report.format},
                                 {"parameters", report.parameters},
                                 {"weight_bytes", report.weight_bytes},
                                 {"file_bytes", report.file_bytes},
                                 {"bits_per_weight", report.bits_per_weight},
                                 {"ratio_fp32", report.ratio_fp32}};
  if (report.predicted_loss) json["predicted_loss"] = *report.predicted_loss;
  if (report.measured_loss) json["measured_loss"] = *report.measured_loss;
  if (!report.uncalibrated.empty()) json["uncalibrated"] = report.uncalibrated;
  json["tensors"] = nlohmann::ordered_json::array();
  for (const TensorReport& t : report.tensors) {
    nlohmann::ordered_json tensor = {{"name", t.name},
                                     {"shape", t.shape},
                                     {"codec", t.codec},
                                     {"bytes", t.bytes},
                                     {"bits_per_weight", t.bits_per_weight}};
    if (t.relative_error) tensor["relative_error"] = *t.relative_error;
    if (t.predicted_loss) tensor["predicted_loss"] = *t.predicted_loss;
    json["tensors"].push_back(std::move(tensor));
  }
  return json;
}

void print_totals(const ModelReport& report) {
  fmt::print("{:<18}{}, {}\n", "model", report.architecture, report.format);
  fmt::print("{:<18}{}\n", "parameters", report.parameters);
  fmt::print("{:<18}{} ({})\n", "weight bytes", report.weight_bytes, human_bytes(report.weight_bytes));
  fmt::print("{:<18}{} ({})\n", "file bytes", report.file_bytes, human_bytes(report.file_bytes));
  fmt::print("{:<18}{:.4f}\n", "bits per weight", report.bits_per_weight);
  fmt::print("{:<18}{:.3f} to 1\n", "ratio to float32", report.ratio_fp32);
  if (report.predicted_loss)
    fmt::print("{:<18}{:.4f} (KL divergence a token, by the tensors' sensitivities to plain 3-bit rounding)\n",
               "predicted loss", *report.predicted_loss);
  if (report.measured_loss)
    fmt::print("{:<18}{:.4f} (on calibration text held out)\n", "measured loss", *report.measured_loss);
  if (!report.uncalibrated.empty())
    fmt::print("{:<18}{} matrices that the text never used were rounded without it: {}{}\n", "not calibrated",
               report.uncalibrated.size(), report.uncalibrated[0], report.uncalibrated.size() > 1 ? ", ..." : "");
}

void print_tensors(const ModelReport& report) {
  size_t width = 4;
  for (const TensorReport& t : report.tensors) width = std::max(width, t.name.size());
  fmt::print("{:<{}}  {:>16}  {:<15} {:>8}  {:>9}\n", "name", width, "shape", "codec", "bits", "rel error");
  for (const TensorReport& t : report.tensors)
    fmt::print("{:<{}}  {:>16}  {:<15} {:>8.3f}  {:>9}\n", t.name, width, fmt::format("{}", fmt::join(t.shape, " x ")),
               t.codec, t.bits_per_weight, t.relative_error ? fmt::format("{:.4f}", *t.relative_error) : "");
}

// One line a codec: what went where.
void print_codecs(const ModelReport& report) {
  struct Sum {
    uint64_t tensors = 0, weights = 0, bytes = 0;
  };
  std::map<std::string, Sum> sums;
  for (const TensorReport& t : report.tensors) {
    Sum& sum = sums[t.codec];
    ++sum.tensors;
    sum.bytes += t.bytes;
    uint64_t weights = 1;
    for (uint64_t dim : t.shape) weights *= dim;
    sum.weights += weights;
  }
  fmt::print("{:<18}{:>8} {:>14} {:>14} {:>8}\n", "codec", "tensors", "weights", "bytes", "bits");
  for (const auto& [codec, sum] : sums)
    fmt::print("{:<18}{:>8} {:>14} {:>14} {:>8.3f}\n", codec, sum.tensors, sum.weights, sum.bytes,
               8.0 * static_cast<double>(sum.bytes) / static_cast<double>(std::max<uint64_t>(sum.weights, 1)));
}

// What cannot be streamed is refused before the first request.
std::unique_ptr<ShardStream> open_stream(const std::string& source, const std::string& target,
                                         const CompressOptions& options, const HubOptions& hub) {
  std::error_code none;
  if (std::filesystem::exists(source, none))
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} is here already: --stream is for models by name; leave it out", source));
  if (options.calibrate != "none")
    throw Error(ErrorCode::kInvalidArgument,
                "--stream reads every weight once, calibration reads the whole model several times: add --calibrate "
                "none, or leave --stream out and have room for the checkpoint");
  ProgressBar bar;
  HubOptions with_bar = hub;
  with_bar.progress = bar.callback();
  return stream_model(source, target + ".shards", with_bar);
}

}  // namespace

void add_compress(CLI::App& command) {
  struct Options {
    std::string source, target, report;
    double ratio = 10, bits = 0;
    uint64_t bytes = 0;
    bool json = false, stream = false;
    HubOptions hub;
    CompressOptions compress;
  };
  auto o = std::make_shared<Options>();
  command
      .add_option("MODEL", o->source,
                  "Checkpoint directory (config.json, tokenizer.json, *.safetensors), or ORG/NAME[:REVISION] on a hub")
      ->required();
  command.add_option("-o,--output", o->target, "UPG file to write")->required();
  auto* ratio = command.add_option("--ratio", o->ratio,
                                   "Float32 bytes of all parameters over bytes of weight data, at least [10]");
  auto* bytes = command.add_option("--bytes", o->bytes, "Bytes of weight data, at most")->excludes(ratio);
  auto* bits = command.add_option("--bits", o->bits, "Bits of weight data per parameter, at most")
                   ->excludes(ratio)
                   ->excludes(bytes);
  command.add_option("--calibrate", o->compress.calibrate,
                     "Text file to calibrate on; default: the bundled mixed text; none: round without [default]");
  command.add_option("--calibration-tokens", o->compress.calibration_tokens, "How many tokens of it [65536]");
  command.add_option("--codec", o->compress.codec, "One codec for every matrix instead of a mix that meets the aim")
      ->excludes(ratio)
      ->excludes(bytes)
      ->excludes(bits);
  command.add_option("--density", o->compress.density, "Share of weights that sparse codecs keep [0.1]");
  command.add_option("--device", o->compress.device, "What does the large sums: cpu or cuda [cpu]");
  command.add_flag("--stream", o->stream,
                   "ORG/NAME: fetch weights as they are read, keep none of them; needs --calibrate none");
  command.add_option("--threads", o->compress.threads, "Threads; 0: one for each core [0]");
  add_hub_options(command, o->hub);
  command.add_option("--report", o->report, "Write what went where as an HTML page");
  command.add_flag("--json", o->json, "Print the report as JSON");
  command.footer(
      "Examples:\n"
      "  upg compress models/demo -o demo.upg\n"
      "  upg compress phi-4 -o phi-4.upg --ratio 10 --report phi-4.html\n"
      "  upg compress phi-4 -o phi-4.upg --device cuda\n"
      "  upg compress models/demo -o quick.upg --bits 4.5 --calibrate none\n"
      "  upg compress models/demo -o pruned.upg --codec mdcsr --density 0.2\n"
      "  upg compress microsoft/phi-4 -o phi-4.upg\n"
      "  upg compress microsoft/phi-4 -o phi-4.upg --stream --calibrate none");
  command.callback([o, ratio, bytes, bits] {
    if (ratio->count()) o->compress.ratio = o->ratio;
    if (bytes->count()) o->compress.bytes = o->bytes;
    if (bits->count()) o->compress.bits = o->bits;
    std::unique_ptr<ShardStream> stream;
    if (o->stream) {
      stream = open_stream(o->source, o->target, o->compress, o->hub);
      o->compress.stream = stream.get();
    }
    const std::string source = stream ? stream->folder() : model_path(o->source, o->hub, ModelForm::kCheckpoint);
    ProgressBar bar;
    o->compress.progress = bar.callback();
    const CompressReport report = compress(source, o->target, o->compress);
    bar.clear();
    if (!o->report.empty()) write_report(report.model, o->report);
    if (o->json) {
      nlohmann::ordered_json json = to_json(report.model);
      json["seconds"] = report.seconds;
      json["peak_bytes"] = report.peak_bytes;
      if (!report.device.empty()) {
        json["device"] = report.device;
        json["device_peak_bytes"] = report.device_peak_bytes;
      }
      print_json(json);
      return;
    }
    print_codecs(report.model);
    fmt::print("\n");
    print_totals(report.model);
    fmt::print("{:<18}{:.1f} s\n", "time", report.seconds);
    fmt::print("{:<18}{}\n", "peak memory", human_bytes(report.peak_bytes));
    if (!report.device.empty())
      fmt::print("{:<18}{} of {}\n", "on the GPU", human_bytes(report.device_peak_bytes), report.device);
  });
}

void add_convert(CLI::App& command) {
  struct Options {
    std::string source, target;
    bool json = false;
    ConvertOptions convert;
  };
  auto o = std::make_shared<Options>();
  command.add_option("OLD", o->source, "UPG file of format 1.0 (a Python pickle, also zipped) or 2.0")->required();
  command.add_option("-o,--output", o->target, "UPG file to write")->required();
  command.add_option("--to", o->convert.to, "Format to write: 2.0 or 3.0 [the one after OLD's]");
  command.add_option(
      "--checkpoint", o->convert.checkpoint,
      "Directory of the original checkpoint, for what a 1.0 file lacks: configuration, tokenizer, weights "
      "that were not compressed");
  command.add_flag("--json", o->json, "Print the report as JSON");
  command.footer(
      "Every weight keeps its exact value. A pickle is read without running anything in it.\n"
      "Examples:\n"
      "  upg convert old.upg -o new.upg\n"
      "  upg convert old.pkl -o new.upg --checkpoint phi-4\n"
      "  upg convert old.upg -o new.upg --to 3.0");
  command.callback([o] {
    ProgressBar bar;
    o->convert.progress = bar.callback();
    const ConvertReport report = convert(o->source, o->target, o->convert);
    bar.clear();
    if (o->json) {
      nlohmann::ordered_json json = to_json(report.model);
      json["from"] = report.from;
      json["form"] = report.form;
      json["notes"] = nlohmann::ordered_json::array();
      for (const auto& note : report.notes) json["notes"].push_back({{"tensor", note.tensor}, {"what", note.what}});
      json["seconds"] = report.seconds;
      return print_json(json);
    }
    for (const auto& note : report.notes) fmt::print("{}: {}\n", note.tensor, note.what);
    if (!report.notes.empty()) fmt::print("\n");
    fmt::print("{:<18}UPG {}, {}\n", "from", report.from, report.form);
    print_totals(report.model);
    fmt::print("{:<18}{:.1f} s\n", "time", report.seconds);
  });
}

void add_inspect(CLI::App& command) {
  struct Options {
    std::string model, report;
    HubOptions hub;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  command.add_option("MODEL", o->model, kModelHelp)->required();
  add_hub_options(command, o->hub);
  command.add_option("--report", o->report, "Write the report as an HTML page");
  command.add_flag("--json", o->json, "Print as JSON");
  command.footer("Examples:\n  upg inspect demo.upg\n  upg inspect demo.upg --json | jq .ratio_fp32");
  command.callback([o] {
    const ModelReport report = inspect(model_path(o->model, o->hub));
    if (!o->report.empty()) write_report(report, o->report);
    if (o->json) return print_json(to_json(report));
    print_tensors(report);
    fmt::print("\n");
    print_totals(report);
  });
}

void add_verify(CLI::App& command) {
  struct Options {
    std::string model;
    HubOptions hub;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  command.add_option("MODEL", o->model, "UPG file, or ORG/NAME[:REVISION] on a hub")->required();
  add_hub_options(command, o->hub);
  command.add_flag("--json", o->json, "Print as JSON");
  command.footer("Example:\n  upg verify demo.upg");
  command.callback([o] {
    const std::string path = model_path(o->model, o->hub);
    ProgressBar bar;
    verify(path, bar.callback());
    bar.clear();
    if (o->json) return print_json({{"path", o->model}, {"ok", true}});
    fmt::print("{}: whole\n", o->model);
  });
}

void add_decompress(CLI::App& command) {
  struct Options {
    std::string model, target;
    HubOptions hub;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  command.add_option("MODEL", o->model, "UPG file, or ORG/NAME[:REVISION] on a hub")->required();
  add_hub_options(command, o->hub);
  command.add_option("-o,--output", o->target, "Directory to create")->required();
  command.add_flag("--json", o->json, "Print as JSON");
  command.footer("Example:\n  upg decompress demo.upg -o demo-dense");
  command.callback([o] {
    const std::string path = model_path(o->model, o->hub);
    ProgressBar bar;
    decompress(path, o->target, bar.callback());
    bar.clear();
    if (o->json) return print_json({{"path", o->model}, {"output", o->target}});
    fmt::print("{}: written\n", o->target);
  });
}

}  // namespace upg::cli
