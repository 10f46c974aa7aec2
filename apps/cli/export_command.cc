// export: a model in another program's file format.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>

#include "command.h"
#include "hub_options.h"
#include "upg/export.h"

namespace upg::cli {
namespace {

void print_report(const ExportReport& report) {
  fmt::print("{:<18}{} ({}, {})\n", "written", report.path, report.format, report.type);
  fmt::print("{:<18}{}\n", "architecture", report.architecture);
  fmt::print("{:<18}{} in {} tensors\n", "parameters", report.parameters, report.tensors);
  fmt::print("{:<18}{} ({})\n", "file bytes", report.file_bytes, human_bytes(report.file_bytes));
  fmt::print("{:<18}{:.1f} s\n", "time", report.seconds);
  for (const std::string& note : report.notes) fmt::print("{:<18}{}\n", "note", note);
}

nlohmann::ordered_json to_json(const ExportReport& report) {
  return {{"path", report.path},
          {"format", report.format},
          {"type", report.type},
          {"architecture", report.architecture},
          {"parameters", report.parameters},
          {"tensors", report.tensors},
          {"file_bytes", report.file_bytes},
          {"seconds", report.seconds},
          {"notes", report.notes}};
}

}  // namespace

void add_export(CLI::App& command) {
  struct Options {
    std::string model, target;
    bool json = false;
    ExportOptions options;
    HubOptions hub;
  };
  auto o = std::make_shared<Options>();
  std::vector<std::string> formats, types;
  for (const ExportType& type : export_types()) {
    if (std::find(formats.begin(), formats.end(), type.format) == formats.end()) formats.emplace_back(type.format);
    types.emplace_back(type.type);
  }
  command.add_option("MODEL", o->model, kModelHelp)->required();
  command.add_option("--to", o->options.format, fmt::format("Format: {}", fmt::join(formats, ", ")))
      ->required()
      ->check(CLI::IsMember(formats));
  command.add_option("-o,--output", o->target, "File to write")->required();
  command
      .add_option("--type", o->options.type, fmt::format("Element type of matrices: {} [f16]", fmt::join(types, ", ")))
      ->check(CLI::IsMember(types));
  command.add_flag("--force", o->options.overwrite, "Replace a file that is there");
  command.add_option("--threads", o->options.threads, "Threads; 0: one for each core [0]");
  add_hub_options(command, o->hub);
  command.add_flag("--json", o->json, "Print the report as JSON");
  command.footer(
      "Examples:\n"
      "  upg export demo.upg --to gguf -o demo.gguf\n"
      "  upg export phi-4 --to gguf --type q8_0 -o phi-4-q8_0.gguf\n"
      "  upg export demo.upg --to gguf --type f32 -o demo.gguf --force --json\n"
      "llama.cpp and the programs made of it read the file. docs/export.md says what differs there.");
  command.callback([o] {
    const std::string model = model_path(o->model, o->hub);
    ProgressBar bar;
    o->options.progress = bar.callback();
    const ExportReport report = export_model(model, o->target, o->options);
    bar.clear();
    if (o->json) return print_json(to_json(report));
    print_report(report);
  });
}

}  // namespace upg::cli
