// pull: a model from a hub into the cache. Also what other commands do with a model's name.
#include <fmt/format.h>

#include <memory>

#include "command.h"
#include "hub_options.h"

namespace upg::cli {

void add_hub_options(CLI::App& command, HubOptions& options) {
  constexpr const char* kGroup = "Models by name";
  command.add_option("--revision", options.revision, "Branch, tag or commit [main]")->group(kGroup);
  command.add_option("--endpoint", options.endpoint, "The hub's address [HF_ENDPOINT, or the configuration file's]")
      ->group(kGroup);
  command.add_option("--retries", options.retries, "Of a request that fails, with longer and longer waits [5]")
      ->group(kGroup)
      ->check(CLI::Range(0, 1000));
  command.add_flag("--offline", options.offline, "What the cache has, no network; as HF_HUB_OFFLINE=1")->group(kGroup);
}

std::string model_path(const std::string& model, const HubOptions& options, ModelForm form) {
  ProgressBar bar;
  HubOptions with_bar = options;
  with_bar.progress = bar.callback();
  return resolve_model(model, with_bar, form);
}

void add_pull(CLI::App& command) {
  struct Options {
    std::string model;
    HubOptions hub;
    bool checkpoint = false, json = false;
  };
  auto o = std::make_shared<Options>();
  command.add_option("MODEL", o->model, "ORG/NAME, ORG/NAME:REVISION or ORG/NAME/FILE.upg")->required();
  command.add_option("--include", o->hub.include, "Only files that match, as in \"*.json\"; repeatable [the model's]");
  command.add_option("--exclude", o->hub.exclude, "No files that match; repeatable");
  command.add_flag("--checkpoint", o->checkpoint, "The checkpoint, where there is a UPG file too");
  command.add_option("--connections", o->hub.connections, "Files that come at the same time [4]")
      ->check(CLI::Range(1, 64));
  add_hub_options(command, o->hub);
  command.add_flag("--json", o->json, "Print what came as JSON");
  command.footer(
      "Files go to the cache that other clients of the hub use (HF_HUB_CACHE, HF_HOME), and every file is checked\n"
      "against the hub's hash. Stopped or cut, the same command goes on where it was. No hub is built in: "
      "HF_ENDPOINT,\n"
      "--endpoint or a line \"endpoint = URL\" in ~/.config/upg/config names it. HF_TOKEN is for private models.\n"
      "Examples:\n"
      "  upg pull microsoft/phi-4\n"
      "  upg pull microsoft/phi-4:main --json | jq -r .path\n"
      "  upg pull ORG/NAME --include \"*.json\" --exclude \"generation*\"\n"
      "  HF_ENDPOINT=http://127.0.0.1:8000 upg pull ORG/NAME/model-q3.upg\n"
      "  upg run microsoft/phi-4 -p \"Once upon a time\"");
  command.callback([o] {
    ProgressBar bar;
    o->hub.progress = bar.callback();
    const PullReport report = pull_model(o->model, o->hub, o->checkpoint ? ModelForm::kCheckpoint : ModelForm::kAny);
    bar.clear();
    if (o->json) {
      nlohmann::ordered_json json = {{"repository", report.repository}, {"revision", report.revision},
                                     {"commit", report.commit},         {"path", report.path},
                                     {"bytes", report.bytes},           {"downloaded", report.downloaded},
                                     {"seconds", report.seconds},       {"files", nlohmann::ordered_json::array()}};
      for (const PulledFile& file : report.files)
        json["files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"downloaded", file.downloaded}});
      return print_json(json);
    }
    for (const PulledFile& file : report.files)
      fmt::print(stderr, "{:>10}  {}{}\n", human_bytes(file.bytes), file.name, file.downloaded ? "" : "  (was there)");
    if (!report.files.empty())
      fmt::print(stderr, "{} of {} downloaded in {:.1f} s\n", human_bytes(report.downloaded), human_bytes(report.bytes),
                 report.seconds);
    fmt::print("{}\n", report.path);
  });
}

}  // namespace upg::cli
