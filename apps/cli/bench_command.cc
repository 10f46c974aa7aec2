// bench: how fast a model or the kernels run here, against how fast this machine reads memory.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>

#include "command.h"
#include "hub_options.h"
#include "upg/bench.h"

namespace upg::cli {
namespace {

struct Options {
  std::string model, shape, keep, compare;
  double ratio = 10;
  bool kernels = false, json = false;
  HubOptions hub;
  BenchOptions bench;
};

// A made-up model's file: kept where the user says so, otherwise gone at the end whatever happens.
class SyntheticFile {
 public:
  explicit SyntheticFile(const Options& o, const Progress& progress) : keep_(!o.keep.empty()) {
    namespace fs = std::filesystem;
    path_ = keep_ ? o.keep : (fs::temp_directory_path() / fmt::format("upg-bench-{}.upg", ::getpid())).string();
    if (keep_ && fs::exists(path_)) return;  // of an earlier run
    write_synthetic_model(o.shape, o.ratio, path_, progress);
  }
  ~SyntheticFile() {
    std::error_code ignored;
    if (!keep_) std::filesystem::remove(path_, ignored);
  }
  SyntheticFile(const SyntheticFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool keep_;
};

nlohmann::ordered_json to_json(const BenchReport& r) {
  nlohmann::ordered_json json = {{"architecture", r.model.architecture}, {"parameters", r.model.parameters},
                                 {"weight_bytes", r.model.weight_bytes}, {"threads", r.model.threads},
                                 {"load_seconds", r.load_seconds},       {"read_bandwidth", r.read_bandwidth},
                                 {"resident_bytes", r.resident_bytes}};
  json["device"] = r.model.device;
  json["bandwidth_kind"] = r.bandwidth_kind;
  if (r.gpu_layers) {  // of two memories, none of which was measured
    json["gpu_layers"] = *r.gpu_layers;
    json.erase("read_bandwidth");
    json.erase("bandwidth_kind");
  }
  if (!r.fusion.empty()) {
    json["fusion"] = r.fusion;
    json["launches_per_token"] = r.launches_per_token;
  }
  json["prompts"] = json["generation"] = nlohmann::ordered_json::array();
  for (const PromptSpeed& p : r.prompts)
    json["prompts"].push_back({{"tokens", p.tokens}, {"tokens_per_second", p.tokens_per_second}});
  for (const GenerationSpeed& g : r.generation) {
    json["generation"].push_back({{"context", g.context},
                                  {"tokens_per_second", g.tokens_per_second},
                                  {"weight_bytes", g.weight_bytes},
                                  {"kv_bytes", g.kv_bytes},
                                  {"bytes_per_second", g.bytes_per_second}});
    if (!r.gpu_layers) json["generation"].back()["fraction"] = g.fraction;
  }
  for (const StreamsSpeed& s : r.streams)
    json["streams"].push_back(
        {{"streams", s.streams}, {"context", s.context}, {"tokens_per_second", s.tokens_per_second}});
  return json;
}

nlohmann::json read_earlier(const std::string& path) {
  if (path.empty()) return {};
  std::ifstream file(path);
  nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
  if (!json.is_object())
    throw Error(ErrorCode::kInvalidFile, fmt::format("{}: cannot be read as JSON of `upg bench --json`", path));
  return json;
}

// ", 1.08 x earlier" for the row of `list` whose `key` is `n`; empty where there is none.
std::string against(const nlohmann::json& earlier, const char* list, const char* key, uint64_t n, double now) {
  if (!earlier.contains(list) || !earlier[list].is_array()) return "";
  for (const nlohmann::json& row : earlier[list]) {
    if (!row.is_object() || row.value(key, uint64_t{0}) != n) continue;
    const double before = row.value("tokens_per_second", 0.0);
    if (before > 0) return fmt::format(", {:.2f} x earlier", now / before);
  }
  return "";
}

void print(const BenchReport& r, const nlohmann::json& earlier) {
  fmt::print("{:<24}{}, {:.2f} G parameters, {} of weights, {} threads\n", "model", r.model.architecture,
             static_cast<double>(r.model.parameters) / 1e9, human_bytes(r.model.weight_bytes), r.model.threads);
  fmt::print("{:<24}{:.2f} s\n", "load", r.load_seconds);
  fmt::print("{:<24}{}\n", "device", r.model.device);
  if (!r.fusion.empty()) fmt::print("{:<24}{}, {} launches a token\n", "fusion", r.fusion, r.launches_per_token);
  if (!r.gpu_layers) fmt::print("{:<24}{:.1f} GB/s\n", "memory " + r.bandwidth_kind, r.read_bandwidth / 1e9);
  for (const PromptSpeed& p : r.prompts)
    fmt::print("{:<24}{:.1f} tokens/s{}\n", fmt::format("prompt of {}", p.tokens), p.tokens_per_second,
               against(earlier, "prompts", "tokens", p.tokens, p.tokens_per_second));
  for (const GenerationSpeed& g : r.generation)
    fmt::print("{:<24}{:.2f} tokens/s, {} each, {:.1f} GB/s{}{}\n", fmt::format("generation at {}", g.context),
               g.tokens_per_second, human_bytes(g.weight_bytes + g.kv_bytes), g.bytes_per_second / 1e9,
               r.gpu_layers ? " from both memories"
                            : fmt::format(": {:.0f}% of memory {}", 100 * g.fraction, r.bandwidth_kind),
               against(earlier, "generation", "context", g.context, g.tokens_per_second));
  for (const StreamsSpeed& s : r.streams)
    fmt::print("{:<24}{:.2f} tokens/s in all, at {} tokens of context{}\n", fmt::format("{} streams", s.streams),
               s.tokens_per_second, s.context, against(earlier, "streams", "streams", s.streams, s.tokens_per_second));
  if (r.resident_bytes) fmt::print("{:<24}{}\n", "resident memory", human_bytes(r.resident_bytes));
}

void bench_kernels_command(const Options& o) {
  ProgressBar bar;
  BenchOptions options = o.bench;
  options.progress = bar.callback();
  const std::vector<KernelSpeed> speeds = bench_kernels(options);
  bar.clear();
  if (o.json) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const KernelSpeed& k : speeds)
      rows.push_back({{"name", k.name},
                      {"tokens", k.tokens},
                      {"cache_weights_per_second", k.cache_weights_per_second},
                      {"memory_weights_per_second", k.memory_weights_per_second},
                      {"cache_bytes_per_second", k.cache_bytes_per_second},
                      {"memory_bytes_per_second", k.memory_bytes_per_second}});
    return print_json(rows);
  }
  fmt::print("{:<42}{:>7}{:>26}{:>26}\n", "", "", "from cache", "from memory");
  fmt::print("{:<42}{:>7}{:>14}{:>12}{:>14}{:>12}\n", "kernel", "tokens", "Gweights/s", "GB/s", "Gweights/s", "GB/s");
  for (const KernelSpeed& k : speeds)
    fmt::print("{:<42}{:>7}{:>14.2f}{:>12.2f}{:>14.2f}{:>12.2f}\n", k.name, k.tokens, k.cache_weights_per_second / 1e9,
               k.cache_bytes_per_second / 1e9, k.memory_weights_per_second / 1e9, k.memory_bytes_per_second / 1e9);
}

// The other ways of launching a token's kernels, at the first context: name, launches and speed of each.
std::vector<BenchReport> bench_fusions(const std::string& path, BenchOptions options) {
  std::vector<BenchReport> reports;
  options.prompts.clear();
  options.contexts.resize(std::min<size_t>(options.contexts.size(), 1));
  for (std::string_view fusion : fusion_names(options.device)) {
    options.fusion = fusion;
    reports.push_back(bench_model(path, options));
  }
  return reports;
}

void bench(const Options& o) {
  if (o.kernels) return bench_kernels_command(o);
  const nlohmann::json earlier = read_earlier(o.compare);
  ProgressBar bar;
  BenchOptions options = o.bench;
  options.progress = bar.callback();
  std::unique_ptr<SyntheticFile> made_up;
  if (!o.shape.empty()) made_up = std::make_unique<SyntheticFile>(o, options.progress);
  const std::string path = made_up ? made_up->path() : model_path(o.model, o.hub);
  const bool all_fusions = options.fusion == "all" && !fusion_names(options.device).empty();
  if (all_fusions) options.fusion.clear();
  const BenchReport report = bench_model(path, options);
  const std::vector<BenchReport> fusions = all_fusions ? bench_fusions(path, options) : std::vector<BenchReport>{};
  bar.clear();
  if (o.json) {
    nlohmann::ordered_json json = to_json(report);
    for (const BenchReport& r : fusions) json["fusions"].push_back(to_json(r));
    return print_json(json);
  }
  print(report, earlier);
  for (const BenchReport& r : fusions)
    for (const GenerationSpeed& g : r.generation)
      fmt::print("{:<24}{:.2f} tokens/s at {}, {} launches a token\n", "fusion " + r.fusion, g.tokens_per_second,
                 g.context, r.launches_per_token);
}

}  // namespace

void add_bench(CLI::App& command) {
  auto o = std::make_shared<Options>();
  std::vector<std::string_view> shapes;
  for (const SyntheticShape& shape : synthetic_shapes()) shapes.push_back(shape.name);
  auto* model = command.add_option("MODEL", o->model, kModelHelp);
  auto* shape = command.add_option(
      "--shape", o->shape, fmt::format("Instead of MODEL, one with random weights: {}", fmt::join(shapes, ", ")));
  auto* kernels = command.add_flag("--kernels", o->kernels, "Instead of a model, every product kernel");
  model->excludes(shape)->excludes(kernels);
  shape->excludes(kernels);
  command.add_option("--ratio", o->ratio, "Of the made-up model [10]")->needs(shape);
  command.add_option("--keep", o->keep, "Keep the made-up model in this file; one that is there is used")->needs(shape);
  command.add_option("--prompt", o->bench.prompts, "Prompt lengths, as in 64,512 [512]")->delimiter(',');
  command.add_option("--context", o->bench.contexts, "Contexts to generate at [128,4096]")->delimiter(',');
  command.add_option("--streams", o->bench.streams, "Sequences to decode together, at the first context: 1,4,16")
      ->delimiter(',');
  command.add_option("--tokens", o->bench.tokens, "Tokens a round at each context [8]");
  command.add_option("--rounds", o->bench.rounds, "Rounds; the median counts [5]");
  command.add_option("--kv", o->bench.kv, "Cache of keys and values: f16, int8 or f32 [f16]");
  command.add_option("--threads", o->bench.threads, "Threads; 0: one for each core [0]");
  add_device_options(command, o->bench.device, o->bench.fusion, o->bench.gpu_layers);
  command.get_option("--gpu-layers")->excludes(kernels);
  add_hub_options(command, o->hub);
  command.add_option("--compare", o->compare, "Output of an earlier --json to compare with");
  command.add_flag("--json", o->json, "Print as JSON");
  command.footer(
      "The share of memory reads is the bytes that a token must read, over what all threads can read in the same "
      "time,\n"
      "measured between the rounds; on a GPU, over what copies read and write; with --gpu-layers it is not measured.\n"
      "--fusion all compares the ways of launching a token's kernels.\n\n"
      "Examples:\n"
      "  upg bench demo.upg --context 128\n"
      "  upg bench --shape phi-4\n"
      "  upg bench --shape phi-4 --device cuda --fusion all\n"
      "  upg bench --shape phi-4 --keep /tmp/phi-4.upg --json >now.json\n"
      "  upg bench --kernels");
  command.callback([o] {
    if (o->model.empty() && o->shape.empty() && !o->kernels) throw CLI::RequiredError("MODEL, --shape or --kernels");
    bench(*o);
  });
}

}  // namespace upg::cli
